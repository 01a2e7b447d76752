"""Work that two launchers divide: a cluster's, and that of the server's machine."""

# ruff: noqa: ARG002 - a launcher that does nothing takes what any takes

import errno
from pathlib import Path

import msgspec
import pytest
from support.scenario import JOB, OTHER_JOB, PROCESS, SLURM_JOB, spec

from modelforge.domain.job import LocalProcess, Reference, SlurmJob
from modelforge.domain.scheduling import Cluster, Machine
from modelforge.layout import Layout
from modelforge.supervisor import patient_reads
from modelforge.supervisor.divided import DividedLauncher
from modelforge.supervisor.launcher import Ending, Waits
from trainer_entry import wire

MERGE = wire.Merge(model_id=1, name="cook", path="/data/models/x")
EVALUATION = wire.Evaluate(
    model_id=1, name="cook", path="/data/models/x", dataset=spec().dataset, parameters=wire.TrainingParameters()
)


class Told:
    """A launcher that does nothing, and knows what it was asked; all its attempts have one reference."""

    def __init__(self, folder: Path, reference: LocalProcess | SlurmJob) -> None:
        self.asked: list[str] = []
        self._folder = folder
        self._reference = reference

    def place(self, server: Machine) -> Cluster:
        return Cluster(server=server)

    async def submit(self, spec: wire.AttemptSpec) -> Reference:
        self.asked.append("submit")
        return self._reference

    async def find(self, job_id: str, attempt: int) -> Reference | None:
        self.asked.append("find")
        return self._reference

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        self.asked.append("know")

    async def started(self, job_id: str, attempt: int, waits: Waits) -> bool:
        self.asked.append("started")
        return True

    async def stop(self, job_id: str, attempt: int) -> None:
        self.asked.append("stop")

    async def save_checkpoint(self, job_id: str, attempt: int) -> None:
        self.asked.append("save_checkpoint")

    async def wait(self, job_id: str, attempt: int) -> None:
        self.asked.append("wait")

    async def ending(self, job_id: str, attempt: int) -> Ending:
        self.asked.append("ending")
        return Ending(exit=None, last_words="")

    def spool(self, job_id: str, attempt: int) -> Path:
        return self._folder


async def heard(reason: str) -> None:
    raise AssertionError(reason)


@pytest.fixture
def cluster(tmp_path: Path) -> Told:
    return Told(tmp_path / "cluster", SLURM_JOB)


@pytest.fixture
def local(tmp_path: Path) -> Told:
    return Told(tmp_path / "local", PROCESS)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data")


@pytest.fixture
def divided(cluster: Told, local: Told, layout: Layout) -> DividedLauncher:
    return DividedLauncher(cluster, local, layout)


def attempt_at(work: wire.Merge | wire.Evaluate | None, job_id: str = JOB) -> wire.AttemptSpec:
    job = msgspec.structs.replace(spec(job_id), work=work)
    return wire.AttemptSpec(job=job, attempt=1, token="ours", cpu_threads=1)  # noqa: S106 - no secret


@pytest.mark.parametrize("work", [None, EVALUATION, MERGE])
async def test_who_is_given_an_attempt_is_asked_everything_about_it(
    divided: DividedLauncher, cluster: Told, local: Told, work: wire.Merge | wire.Evaluate | None
) -> None:
    has, has_not = (local, cluster) if work is MERGE else (cluster, local)
    assert await divided.submit(attempt_at(work)) == (PROCESS if work is MERGE else SLURM_JOB)
    assert await divided.started(JOB, 1, heard)
    await divided.save_checkpoint(JOB, 1)
    await divided.stop(JOB, 1)
    await divided.wait(JOB, 1)
    assert divided.spool(JOB, 1).name == ("local" if work is MERGE else "cluster")
    assert await divided.ending(JOB, 1) == Ending(exit=None, last_words="")
    assert has.asked == ["submit", "started", "save_checkpoint", "stop", "wait", "ending"]
    assert has_not.asked == []


@pytest.mark.parametrize("work", [None, MERGE])
async def test_an_attempt_is_looked_for_where_it_was_to_be_submitted(
    divided: DividedLauncher, cluster: Told, local: Told, layout: Layout, work: wire.Merge | None
) -> None:
    assert await divided.find(JOB, 1) is None
    folder = layout.attempt(JOB, 1)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(msgspec.json.encode(attempt_at(work)))
    assert await divided.find(JOB, 1) == (SLURM_JOB if work is None else PROCESS)
    assert (cluster.asked, local.asked) == ((["find"], []) if work is None else ([], ["find"]))


async def test_an_attempt_is_looked_for_again_where_the_disk_fails(
    divided: DividedLauncher, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient_reads, "RETRY_SECONDS", 0.01)
    fails = [errno.ESTALE, errno.EIO]

    def read(_file: Path) -> bytes:
        if fails:
            raise OSError(fails.pop(), "It fails")
        return msgspec.json.encode(attempt_at(None))

    monkeypatch.setattr(Path, "read_bytes", read)
    assert await divided.find(JOB, 1) == SLURM_JOB
    assert fails == []


async def test_an_attempt_whose_spec_is_not_whole_was_never_submitted(divided: DividedLauncher, layout: Layout) -> None:
    folder = layout.attempt(JOB, 1)
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(msgspec.json.encode(attempt_at(None))[:-9])
    assert await divided.find(JOB, 1) is None


async def test_a_training_that_began_on_the_servers_machine_is_seen_off_there(
    divided: DividedLauncher, cluster: Told, local: Told
) -> None:
    divided.know(JOB, 1, PROCESS)
    divided.know(OTHER_JOB, 1, SLURM_JOB)
    await divided.wait(JOB, 1)
    await divided.stop(OTHER_JOB, 1)
    assert (local.asked, cluster.asked) == (["know", "wait"], ["know", "stop"])


async def test_nothing_is_asked_about_an_attempt_that_has_ended(
    divided: DividedLauncher, cluster: Told, local: Told
) -> None:
    await divided.stop(JOB, 1)
    await divided.save_checkpoint(JOB, 1)
    assert (local.asked, cluster.asked) == ([], [])
