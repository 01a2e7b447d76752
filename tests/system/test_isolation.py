"""With `--isolate`, a trainer, a preview and the playground see the files of their work, and nothing else."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.running_server import RECORDS, RunningServer, environment
from support.tiny_model import build_tiny_model
from support.trainer_attempts import job_of

from modelforge.errors import SettingsInvalid
from modelforge.machine.isolation import Isolation, isolation_of
from modelforge.settings import Settings, load_settings
from trainer_entry import wire

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is optional")
_PROBE = """
import json, os, socket, sys
from pathlib import Path
seen = {}
def attempt(name, work):
    try: seen[name] = str(work())
    except Exception as error: seen[name] = type(error).__name__
home, data, work = map(Path, sys.argv[1:4])
attempt("kept in home", lambda: (home / "secret").read_text())
attempt("log", lambda: (data / "events.sqlite").exists())
attempt("work", lambda: (work / "records").read_text())
attempt("write to work", lambda: (work / "written").write_text("x"))
attempt("write elsewhere", lambda: Path("/usr/written").write_text("x"))
attempt("network", lambda: socket.create_connection(("127.0.0.1", int(sys.argv[4])), timeout=2))
attempt("interfaces", lambda: sorted(name for _, name in socket.if_nameindex()))
print(json.dumps(seen))
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "secret").write_text("canary")
    return load_settings({"isolate": True, "data_dir": str(tmp_path / "data")}, {}, tmp_path)


def test_a_training_reads_the_files_that_reward_it_and_no_view_of_a_dataset_does() -> None:
    functions = [{"name": "python_file", "path": "/home/me/rewards/mine.py", "sha256": "0" * 64}]
    parameters = msgspec.convert({"reward_functions": functions}, wire.TrainingParameters)
    job = job_of(parameters, strategy="rlhf", model_path="/models/base", output_dir="/out/1", checkpoint_dir="/c")
    isolation = Isolation("/usr/bin/bwrap", ("/home/me",))
    words = isolation.around_job(job, Path("/data/jobs/1/attempt-1"))
    place = words.index("/home/me/rewards/mine.py")
    assert words[place - 1 : place + 2] == ["--ro-bind-try", *["/home/me/rewards/mine.py"] * 2]
    assert "/home/me/rewards/mine.py" not in isolation.around_view(job)


@needs_bubblewrap
def test_what_is_set_apart_sees_its_work_and_nothing_else(settings: Settings, module_server: RunningServer) -> None:
    isolation = isolation_of(settings)
    assert isolation is not None
    work = settings.data_dir / "work"
    work.mkdir(parents=True)
    (work / "records").write_text("mine")
    (settings.data_dir / "events.sqlite").write_text("everybody's")
    port = module_server.url.rpartition(":")[2]
    places = [str(Path.home()), str(settings.data_dir), str(work), port]

    def probe(around: list[str]) -> dict[str, str]:
        command = [*around, sys.executable, "-c", _PROBE, *places]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        seen: dict[str, str] = json.loads(said)
        return seen

    assert probe([])["kept in home"] == "canary"
    seen = probe(isolation.around(reads=(), writes=(str(work),), network=False))
    assert seen == {
        "kept in home": "FileNotFoundError",
        "log": "False",
        "work": "mine",
        "write to work": "1",
        "write elsewhere": "OSError",
        "network": "ConnectionRefusedError",
        "interfaces": "['lo']",
    }
    read_only = probe(isolation.around(reads=(str(work),), writes=(), network=True))
    assert (read_only["work"], read_only["write to work"]) == ("mine", "OSError")
    assert "socket" in read_only["network"]


def test_without_bubblewrap_it_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SettingsInvalid, match="bubblewrap"):
        isolation_of(settings)


def test_where_it_does_not_work_it_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho no user namespaces >&2\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SettingsInvalid, match="no user namespaces"):
        isolation_of(settings)


def test_it_is_only_had_where_it_is_asked_for(tmp_path: Path) -> None:
    assert isolation_of(load_settings({"data_dir": str(tmp_path)}, {}, tmp_path)) is None


def test_every_word_before_a_command_is_one_of_its_own() -> None:
    words = Isolation("/usr/bin/bwrap", ("/home/me",)).around(reads=("/a b", ""), writes=("/c;d",), network=False)
    assert words[-1] == "--"
    assert "/a b" in words
    assert "" not in words


@pytest.fixture
def isolated() -> Iterator[tuple[RunningServer, Path]]:
    # Not in the folder of temporary files of a test: the home is to be within a folder that a trainer would see.
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        command = [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--isolate"]
        roots = ["--data-dir", str(home / "data"), "--model-root", str(home), "--dataset-root", str(home)]
        server = RunningServer([*command, *roots], environment(PYTHONWARNINGS="default", HOME=str(home)))
        yield server, home
        server.end()


@needs_bubblewrap
@pytest.mark.training
@pytest.mark.timeout(300)
def test_everything_works_that_works_without(isolated: tuple[RunningServer, Path]) -> None:
    server, home = isolated
    base = build_tiny_model(home / "base")
    server.upload(RECORDS).raise_for_status()
    view = server.get(f"/api/datasets/data.jsonl/preview?limit=1&model_name={base}")
    assert view.status_code == 200, view.text
    body = {"task": "text-generation", "model_name": str(base), "dataset": "data.jsonl", "max_steps": 2}
    started = server.post("/api/start_training", body)
    assert started.status_code == 200, started.text
    job = server.wait_for(started.json()["job_id"], seconds=200)
    assert job["status"] == "completed", job["error"]
    answer = server.post("/api/playground/generate", {"prompt": "x", "model_id": 1, "max_new_tokens": 2})
    assert answer.status_code == 200, answer.text
    exported = server.wait_for(server.post("/api/models/1/export", {"path": str(home / "out")}).json()["job_id"])
    assert exported["status"] == "completed", exported["error"]
    assert (home / "out" / "adapter_model.safetensors").is_file()
    long = server.post("/api/start_training", {**body, "max_steps": 100_000})
    server.wait_for(long.json()["job_id"], "training")
    stopped = server.post("/api/stop_training")
    assert stopped.status_code == 200, stopped.text
    assert server.wait_for(long.json()["job_id"])["status"] == "stopped"
