"""A server that was installed without the trainers' libraries: it is whole, and says what it cannot do."""

import subprocess
import sys

WITHOUT = """
import importlib, importlib.util, pkgutil, sys
from importlib.machinery import PathFinder

LIBRARIES = {"torch", "transformers", "accelerate", "datasets", "peft", "trl", "bitsandbytes", "gguf", "jinja2"}
LIBRARIES |= {"jsonschema", "google", "sentencepiece", "tokenizers", "torchmetrics", "safetensors"}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in LIBRARIES else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", WITHOUT + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_every_room_of_the_server_is_loaded() -> None:
    loaded = run("""
import modelforge
names = [one.name for one in pkgutil.walk_packages(modelforge.__path__, "modelforge.") if "__main__" not in one.name]
for name in names:
    importlib.import_module(name)
print(len(names))
""")
    assert int(loaded) > 150


def test_what_needs_them_is_refused_with_the_word_that_installs_them() -> None:
    said = run("""
from modelforge.errors import TrainersMissing
from modelforge.http.plumbing.problems import problem_of
from modelforge.machine.trainer_libraries import check_trainer_libraries
try:
    check_trainer_libraries()
except TrainersMissing as error:
    problem = problem_of(error)
    print(problem.status_code, problem.detail)
""")
    assert said.startswith("503 Missing: torch, transformers, accelerate, datasets, peft, trl.")
    assert "pip install 'modelforge[trainers]'" in said


def test_the_demo_says_so_before_it_makes_anything() -> None:
    said = run("""
import os, tempfile
from modelforge.cli import main
os.chdir(tempfile.mkdtemp())
print(main(["demo"]), os.listdir())
""")
    assert said.split() == ["1", "[]"]
