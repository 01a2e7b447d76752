"""Real servers in processes of their own, and jobs whose trainers are scripted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.attempt_files import model_in, training
from support.running_server import RECORDS, RunningServer, scripted_server

# A shared machine is slow at times: no test of an invariant has a deadline.
settings.register_profile("whole", max_examples=200, deadline=None)
settings.register_profile("fast", max_examples=20, deadline=None)
settings.load_profile("whole")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def serve(data_dir: Path) -> Iterator[Callable[..., RunningServer]]:
    """Starts servers with scripted trainers; they and their trainers are gone after the test."""
    servers: list[RunningServer] = []

    def start(folder: Path = data_dir, **variables: str) -> RunningServer:
        servers.append(scripted_server(folder, **variables))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            if server.get("/api/training_status").json()["status"] in {"starting", "training"}:
                server.post("/api/stop_training")
            server.end()


@pytest.fixture
def server(serve: Callable[..., RunningServer]) -> RunningServer:
    return serve()


@pytest.fixture(scope="module")
def module_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of `module_server`."""
    return tmp_path_factory.mktemp("server") / "data"


@pytest.fixture(scope="module")
def module_server(module_data_dir: Path) -> Iterator[RunningServer]:
    """One server for tests that change nothing, or nothing that another test of the module reads."""
    server = scripted_server(module_data_dir)
    yield server
    server.end()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    return model_in(tmp_path)


@pytest.fixture
def start(model_folder: Path) -> Callable[..., str]:
    """Starts a job whose scripted trainer behaves as named; gives its id."""

    def start_job(server: RunningServer, behaviour: str, **fields: object) -> str:
        server.upload(RECORDS).raise_for_status()
        answer = server.post("/api/start_training", training(model_folder, behaviour, **fields))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    return start_job
