"""A trainer that stands by: who gets it, what becomes of it, and that nothing is left of it."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from support.attempt_files import model_in, processes_of, shim_of, steps_of, training, until_step
from support.running_server import RECORDS, RunningServer, modelforge, scripted_server
from support.trainer_attempts import job_of

from modelforge.domain import job
from modelforge.domain.scheduling import Machine
from modelforge.domain.state import State
from modelforge.layout import Layout
from modelforge.machine.host_memory import AHEAD_BYTES, HostMemory
from modelforge.machine.software_state import software_state
from modelforge.supervisor import standby as room
from modelforge.supervisor import waiting_trainer
from modelforge.supervisor.attempt_environment import share_of
from modelforge.supervisor.standby import Standby
from modelforge.supervisor.waiting_trainer import WaitingTrainer
from trainer_entry import wire


class Standing:
    """Servers that keep a trainer ready, with scripted trainers."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.model = model_in(folder)
        self.tokens: list[str] = []
        self.server: RunningServer | None = None

    def serve(self, **variables: str) -> RunningServer:
        self.server = scripted_server(self.data_dir, "--standby", **variables)
        self.server.upload(RECORDS).raise_for_status()
        return self.server

    def start(self, behaviour: str, **fields: object) -> str:
        assert self.server is not None
        answer = self.server.post("/api/start_training", training(self.model, behaviour, **fields))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def ready(self, times: int = 1) -> str:
        """The token of the trainer that stands by, once it is the so-manieth."""
        assert self.server is not None
        wait(lambda: self.server.said().count("trainer_stands_ready") >= times)  # type: ignore[union-attr]
        (folder,) = (self.data_dir / "standby").iterdir()
        self.tokens.append(folder.name)
        return folder.name

    def shim(self, token: str) -> int:
        """The process that holds the others together."""
        (found,) = [pid for pid in processes_of(token) if b"trainer_entry.shim" in _words(pid)]
        return found


def _words(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Standing]:
    standing = Standing(tmp_path)
    yield standing
    if standing.server is not None and standing.server.process.poll() is None:
        if standing.server.get("/api/training_status").json()["status"] in {"starting", "training"}:
            standing.server.post("/api/stop_training")
        standing.server.end()
    wait(lambda: not any(processes_of(token) for token in standing.tokens))
    assert [*standing.data_dir.glob("standby/*")] == []


def test_the_next_attempt_is_given_to_who_stands_by_and_then_another_does(standing: Standing) -> None:
    server = standing.serve()
    first = standing.ready()
    assert server.get("/api/jobs").json()["jobs"] == []
    job_id = standing.start("completes")
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
    assert steps_of(server, job_id) == list(range(1, 11))
    assert shim_of(standing.data_dir, job_id)["token"] == first
    assert processes_of(first) == []
    attempt = standing.data_dir / "jobs" / job_id / "attempt-1"
    assert {path.name for path in attempt.iterdir()} == {
        *("spec.json", "shim.json", "exit.json", "stdout.jsonl", "stderr.log", "environment.json")
    }
    assert standing.ready(2) != first


def test_who_stands_by_ends_with_the_server_however_that_ends(standing: Standing) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        server = standing.serve()
        token = standing.ready()
        assert len(processes_of(token)) == 2
        server.end(number)
        wait(lambda token=token: not processes_of(token))


def test_who_was_given_an_attempt_outlives_the_server(standing: Standing) -> None:
    server = standing.serve()
    token = standing.ready()
    job_id = standing.start("waits", max_steps=200)
    until_step(server, job_id, 5)
    before = processes_of(token)
    server.end(signal.SIGKILL)
    server = standing.serve()
    assert processes_of(token) == before
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
    assert steps_of(server, job_id) == list(range(1, 201))


@pytest.mark.parametrize("who", ["shim", "trainer"])
def test_where_it_was_killed_an_attempt_is_started_in_the_ordinary_way(standing: Standing, who: str) -> None:
    server = standing.serve()
    token = standing.ready()
    shim = standing.shim(token)
    os.kill(shim if who == "shim" else next(pid for pid in processes_of(token) if pid != shim), signal.SIGKILL)
    wait(lambda: not processes_of(token) and not [*standing.data_dir.glob("standby/*")])
    job_id = standing.start("completes")
    assert server.wait_for(job_id)["status"] == "completed"
    assert shim_of(standing.data_dir, job_id)["token"] != token


def test_where_it_does_not_answer_it_is_ended_and_the_attempt_is_started_in_the_ordinary_way(
    standing: Standing,
) -> None:
    server = standing.serve()
    token = standing.ready()
    os.kill(standing.shim(token), signal.SIGSTOP)
    job_id = standing.start("completes")
    job = server.wait_for(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1), job["error"]
    assert shim_of(standing.data_dir, job_id)["token"] != token
    assert processes_of(token) == []


@pytest.mark.parametrize("said", ["", "{}\n"])
def test_an_answer_that_comes_too_late_is_the_attempt_only_if_the_spool_has_a_line(tmp_path: Path, said: str) -> None:
    token, folder = "0" * 32, tmp_path / "attempt-1"
    folder.mkdir()
    report = wire.ShimReport(pid=1, start_time=1, boot_id="", token=token)
    (folder / "shim.json").write_bytes(msgspec.json.encode(report))
    (folder / "stderr.log").touch()
    (folder / "stdout.jsonl").write_text(said)
    spec = wire.AttemptSpec(
        job=job_of(wire.TrainingParameters(), grace_seconds=1), attempt=1, token=token, cpu_threads=1
    )

    async def give() -> wire.ShimReport | None:
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await asyncio.open_unix_connection(sock=ours)
            waiting = WaitingTrainer(token, tmp_path / "none", {}, "", *streams)
            waiting.replies.put_nowait(b"")
            (tmp_path / "none").mkdir()
            (tmp_path / "none" / "stderr.log").write_text("its library is broken\n")
            given = await waiting.give(spec, folder, {})
            await asyncio.gather(waiting.writer.wait_closed(), return_exceptions=True)
            return given

    with capture_logs() as logged:
        assert asyncio.run(give()) == (report if said else None)
    failed = [line["last_words"] for line in logged if line["event"] == "standby_failed"]
    assert failed == ([] if said else ["its library is broken"])
    assert [*folder.iterdir()] == [] if not said else (folder / "shim.json").exists()


def test_an_answer_is_heard_though_the_imports_took_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_IMPORT_SECONDS", 0)

    async def attend() -> list[bytes]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        waiting = WaitingTrainer("0" * 32, tmp_path / "none", {}, "", reader, writer)
        standby = Standby(Layout(tmp_path), lambda _: [])  # which has given it an order: it is not its own now
        attends = asyncio.ensure_future(standby._attend(waiting))  # noqa: SLF001 - no clock has to run for it
        for _ in range(20):
            await asyncio.sleep(0)
        with theirs:
            theirs.sendall(b"ready\n")
        await attends
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        return [waiting.replies.get_nowait() for _ in range(waiting.replies.qsize())]

    assert asyncio.run(attend()) == [b"ready\n", b""]


@pytest.mark.parametrize("why", ["cancelled", "refused"])
def test_of_one_that_was_not_started_no_folder_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    made: list[Path] = []

    async def never(*_: object) -> None:
        made.extend((tmp_path / "standby").iterdir())
        if why == "refused":
            raise OSError(errno.EMFILE, "too many files")
        await asyncio.Event().wait()

    monkeypatch.setattr(waiting_trainer, "_start_shim", never)
    folder = tmp_path / "standby" / ("0" * 32)

    async def start() -> None:
        starts = asyncio.ensure_future(WaitingTrainer.start("0" * 32, folder, {}, "", []))
        for _ in range(20):
            await asyncio.sleep(0)
        if why == "cancelled":
            starts.cancel()
        await starts

    with pytest.raises(OSError if why == "refused" else asyncio.CancelledError):
        asyncio.run(start())
    assert made == [folder]
    assert not folder.exists()


def test_without_a_socket_no_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise OSError(errno.EMFILE, "too many files")

    async def start() -> None:  # the loop has its own pair by now
        monkeypatch.setattr(waiting_trainer.socket, "socketpair", none)
        await WaitingTrainer.start("0" * 32, tmp_path / "standby" / ("0" * 32), {}, "", [])

    with pytest.raises(OSError, match="too many files"):
        asyncio.run(start())
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("who", ["the next attempt", "the end of the server"])
def test_nobody_waits_while_only_the_memory_of_running_jobs_is_reckoned(tmp_path: Path, who: str) -> None:
    spec = job_of(wire.TrainingParameters())
    state = State(running=(spec.job_id,), jobs={spec.job_id: job.Job(spec=spec, status="training", attempt=1)})
    attempt = wire.AttemptSpec(job=spec, attempt=1, token="", cpu_threads=1)

    async def follow() -> None:
        asked = asyncio.Event()

        async def needs(_: wire.JobSpec) -> int | None:
            asked.set()
            await asyncio.Event().wait()  # the hub does not answer
            return None

        standby = Standby(Layout(tmp_path), lambda _: [], needs=needs)
        standby.open(Machine(slots=2), state)
        standby._begin()  # noqa: SLF001 - no clock has to run for it
        await asyncio.wait_for(asked.wait(), 30)
        if who == "the next attempt":
            share = share_of(attempt, 1)
            handed = standby.hand_over(attempt, share, tmp_path, lambda _: {})
            assert await asyncio.wait_for(handed, 30) is None
        await asyncio.wait_for(standby.close(), 30)

    asyncio.run(follow())
    assert [*tmp_path.iterdir()] == []


def test_meanwhile_something_is_done_that_ends_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def meanwhile() -> None:
        said.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            said.append("over")

    async def follow() -> None:
        waiting = await WaitingTrainer.start(
            "0" * 32, tmp_path / "standby" / ("0" * 32), dict(os.environ), "", ["none"]
        )

        async def start(*_: object) -> WaitingTrainer:
            return waiting

        monkeypatch.setattr(WaitingTrainer, "start", start)
        standby = Standby(Layout(tmp_path), lambda _: [], meanwhile=meanwhile)
        standby.open(Machine(), State())
        standby._begin()  # noqa: SLF001 - no clock has to run for it
        for _ in range(3000):
            if said:
                break
            await asyncio.sleep(0.01)
        await asyncio.wait_for(standby.close(), 30)

    asyncio.run(follow())
    assert said == ["begun", "over"]


def test_one_that_is_being_launched_is_waited_for_and_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def follow() -> list[str]:
        came: list[str] = []
        memory = HostMemory(total=1 << 50, available=1 << 50, swap_total=0, swap_free=0)
        launches, goes_on = asyncio.Event(), asyncio.Event()

        async def start(*_: object) -> WaitingTrainer:
            launches.set()
            await goes_on.wait()
            came.append("launched")
            raise OSError(errno.EMFILE, "too many files")

        monkeypatch.setattr(WaitingTrainer, "start", start)
        monkeypatch.setattr(room, "host_memory", lambda: memory)
        standby = Standby(Layout(tmp_path), lambda _: [])
        standby.open(Machine(), State())
        standby._begin()  # noqa: SLF001 - no clock has to run for it
        await asyncio.wait_for(launches.wait(), 30)
        closes = asyncio.ensure_future(standby.close())
        for _ in range(20):
            await asyncio.sleep(0)
        goes_on.set()
        await closes
        return came

    assert asyncio.run(follow()) == ["launched"]


@pytest.mark.parametrize(("needed", "starts"), [(None, True), (1 << 30, True), (3 << 30, False)])
def test_one_is_started_only_where_the_jobs_beside_it_have_the_memory_that_they_were_reckoned_to_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needed: int | None, *, starts: bool
) -> None:
    available = AHEAD_BYTES + (2 << 30)
    memory = HostMemory(total=available, available=available, swap_total=0, swap_free=0)
    monkeypatch.setattr(room, "host_memory", lambda: memory)
    started: list[str] = []

    async def start(token: str, *_: object) -> WaitingTrainer:
        started.append(token)
        raise OSError(errno.EMFILE, "too many files")

    monkeypatch.setattr(WaitingTrainer, "start", start)

    async def needs(_: wire.JobSpec) -> int | None:
        return needed

    spec = job_of(wire.TrainingParameters())
    running = job.Job(spec=spec, status="training", attempt=1)
    state = State(running=(spec.job_id,), jobs={spec.job_id: running})

    async def follow() -> None:
        standby = Standby(Layout(tmp_path), lambda _: [], needs=needs)
        standby.open(Machine(slots=2), state)
        with contextlib.suppress(OSError):
            await standby._start()  # noqa: SLF001 - no clock has to run for it
        await standby.close()

    asyncio.run(follow())
    assert bool(started) == starts


def test_a_server_that_is_killed_at_the_hand_over_finds_the_attempt_that_it_gave(standing: Standing) -> None:
    server = standing.serve()
    token = standing.ready()
    shim = standing.shim(token)
    os.kill(shim, signal.SIGSTOP)
    job_id = standing.start("completes")
    wait(lambda: [*standing.data_dir.glob("jobs/*/attempt-1/spec.json")] != [])
    time.sleep(0.1)  # the order is on its way; without it the next server starts the attempt anew
    server.end(signal.SIGKILL)
    os.kill(shim, signal.SIGCONT)
    server = standing.serve()
    job = server.wait_for(job_id)
    assert job["status"] == "completed", job["error"]
    assert steps_of(server, job_id) == list(range(1, 11))


def test_a_stop_at_the_hand_over_ends_the_attempt(standing: Standing) -> None:
    server = standing.serve()
    token = standing.ready()
    shim = standing.shim(token)
    os.kill(shim, signal.SIGSTOP)
    job_id = standing.start("waits", max_steps=100_000)
    stop = threading.Thread(target=server.post, args=("/api/stop_training",))
    stop.start()
    wait(lambda: server.get(f"/api/jobs/{job_id}").json()["status"] == "stopping")
    os.kill(shim, signal.SIGCONT)
    stop.join()
    assert server.wait_for(job_id)["status"] == "stopped"
    assert processes_of(token) == []


def test_one_whose_imports_hang_is_ended_and_no_other_is_started_before_a_job(standing: Standing) -> None:
    hangs = standing.data_dir.parent / "standby-hangs"
    hangs.touch()
    server = standing.serve()
    wait(lambda: "standby_ended" in server.said())
    assert [*standing.data_dir.glob("standby/*")] == []
    hangs.unlink()
    job_id = standing.start("completes")
    assert server.wait_for(job_id)["status"] == "completed"
    standing.ready()


def test_why_one_ended_by_itself_is_logged(standing: Standing) -> None:
    (standing.data_dir.parent / "standby-hangs").write_text("its library is broken")
    server = standing.serve()
    wait(lambda: "standby_ended" in server.said())
    assert "its library is broken" in server.said()


def test_of_two_jobs_at_once_one_is_given_to_it(standing: Standing) -> None:
    server = standing.serve(MODELFORGE_MAX_CONCURRENT_JOBS="2")
    token = standing.ready()
    jobs = [standing.start("completes") for _ in range(2)]
    ended = [server.wait_for(job_id) for job_id in jobs]
    assert [job["status"] for job in ended] == ["completed"] * 2, [job["error"] for job in ended]
    tokens = [shim_of(standing.data_dir, job_id)["token"] for job_id in jobs]
    assert (tokens[0] == token, tokens[1] == token) == (True, False)


def test_it_gets_no_attempt_once_a_package_was_installed(standing: Standing, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    server = standing.serve(PYTHONPATH=f"{Path(__file__).parents[1]}:{site}")
    token = standing.ready()
    (site / "another-1.0.dist-info").mkdir()
    job_id = standing.start("completes")
    assert server.wait_for(job_id)["status"] == "completed"
    assert shim_of(standing.data_dir, job_id)["token"] != token


def test_an_attempt_whose_files_cannot_be_written_is_refused_and_nobody_is_left(standing: Standing) -> None:
    server = standing.serve()
    token = standing.ready()
    taken = standing.data_dir / "jobs" / "train_000003" / "attempt-1" / "shim.partial"
    taken.mkdir(parents=True)
    job_id = standing.start("completes")
    assert job_id == "train_000003"
    job = server.wait_for(job_id)
    assert job["error"]["kind"] == "LaunchFailed"  # type: ignore[index]
    assert processes_of(token) == []


def test_the_doctor_finds_nothing_wrong_with_it(standing: Standing) -> None:
    standing.serve()
    standing.ready()
    found = modelforge("doctor", "--data-dir", str(standing.data_dir), "--json")
    assert "left behind" not in found.stdout
    assert f'"{standing.data_dir}/standby' not in found.stdout


def test_the_software_has_another_name_once_a_package_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = software_state()
    assert software_state() == before
    (tmp_path / "other-1.0.dist-info").mkdir()
    assert software_state() != before
