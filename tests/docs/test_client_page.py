"""docs/client.md against the client, and its programs against a server."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT, blocks, code, read, rows, section
from support.attempt_files import model_in
from support.running_server import RunningServer, scripted_server

from modelforge.client import AsyncClient
from modelforge.client.calls import Calls
from modelforge.client.datasets import DatasetCalls
from modelforge.client.jobs import JobCalls
from modelforge.client.models import ModelCalls
from modelforge.client.server import ServerCalls

PAGE = read("docs/client.md")
CALLS: tuple[type[Calls], ...] = (JobCalls, DatasetCalls, ModelCalls, ServerCalls)


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[RunningServer]:
    server = scripted_server(tmp_path / "data", "--scripted-answers")
    yield server
    server.end()


def test_the_table_has_the_methods_of_each_kind_and_no_other() -> None:
    told = [code(names) for _, names in rows(section(PAGE, "Methods"))]
    assert told == [[name for name, value in vars(kind).items() if inspect.isfunction(value)] for kind in CALLS]
    assert set(AsyncClient.__mro__) > set(CALLS)


def test_the_programs_do_what_is_said_of_them(
    forge: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELFORGE_URL", forge.url)
    monkeypatch.chdir(ROOT)
    model = model_in(tmp_path)
    names: dict[str, object] = {}
    programs = blocks(PAGE, "python")
    shown = []
    for program in programs:
        exec(program.replace("smollm2-135m-instruct", str(model)), names)  # noqa: S102 - the page's own
        shown.append(capsys.readouterr().out)
    train, follow, refused, _ = shown
    assert "completed 10" in train
    assert "generated_text" in train.splitlines()[-1]
    assert len(follow.split(", ")) == 10
    assert refused.startswith("400 lora_r ")
    jobs = forge.get("/api/jobs").json()["jobs"]
    assert len(jobs) == 2
    for job in jobs:
        forge.wait_for(job["job_id"])
