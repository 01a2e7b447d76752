"""A server for tests of the command line, whose playground answers as it is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.attempt_files import model_in
from support.running_server import RECORDS, RunningServer, scripted_server


@pytest.fixture(scope="module")
def talking(module_data_dir: Path) -> Iterator[RunningServer]:
    """One server for a module, with a dataset `data.jsonl`, a model's folder `base`, and scripted answers."""
    module_data_dir.parent.mkdir(exist_ok=True)
    model_in(module_data_dir.parent)
    server = scripted_server(module_data_dir, "--scripted-answers")
    server.upload(RECORDS).raise_for_status()
    yield server
    if server.get("/api/training_status").json()["status"] in {"starting", "training"}:
        server.post("/api/stop_training")
    server.end()


@pytest.fixture(scope="module")
def base(module_data_dir: Path) -> str:
    """The folder of the model that jobs of `talking` train."""
    return str(module_data_dir.parent / "base")


@pytest.fixture
def at(talking: RunningServer) -> tuple[str, str]:
    """The flags that name the server."""
    return ("--url", talking.url)
