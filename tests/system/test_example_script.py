"""The example in Python trains a tiny model on a server as a user starts it, and asks it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.running_server import RECORDS, RunningServer, environment, real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.slow]
SCRIPT = Path(__file__).parents[2] / "examples" / "train_and_ask.py"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    folder = tmp_path_factory.mktemp("script")
    (folder / "data.jsonl").write_bytes(RECORDS)
    server = real_server(folder)
    yield server, folder
    server.end()


def run(server: RunningServer, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
        env=environment(MODELFORGE_URL=server.url),
    )


def test_it_trains_follows_and_asks(served: tuple[RunningServer, Path]) -> None:
    server, folder = served
    model = build_tiny_model(folder / "model")
    ended = run(server, str(folder / "data.jsonl"), "What is 7?", "--model", str(model), "--steps", "2")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "data.jsonl: 20 examples"
    losses = lines.index("completed: 2 of 2 steps") + 1
    assert [line.partition(":")[0] for line in lines[losses : losses + 2]] == ["step 1", "step 2"]
    (made,) = server.get("/api/models").json()["models"]
    asked = {"model_id": made["id"], "prompt": "What is 7?", "max_new_tokens": 60, "temperature": 0}
    answer = server.post("/api/playground/generate", asked).json()["generated_text"]
    assert "\n".join(lines[losses + 2 :]).strip() == answer.strip()


def test_what_the_server_refuses_is_its_error(served: tuple[RunningServer, Path]) -> None:
    server, folder = served
    ended = run(server, str(folder / "data.jsonl"), "What?", "--model", "none")
    assert ended.returncode == 1
    assert "No such model" in ended.stderr
