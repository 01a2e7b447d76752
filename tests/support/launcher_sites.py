"""Where attempts run, for the tests that every launcher passes (tests/supervisor/test_launcher_contract.py).

A launcher is one of them by a class here with the methods of `Site`, and its line in `SITES`. A cluster whose server
sees late what its nodes write is one more where the environment has MODELFORGE_TESTS_LATE: it takes a minute.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from modelforge.domain.scheduling import Machine, Place
from modelforge.layout import Layout
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.local import LocalLauncher
from support.attempt_files import processes_of
from support.late_site import LateSite
from support.scenario import spec as job_spec
from support.scripted_command import command
from support.slurm_site import SlurmSite
from support.waiting_launcher import WaitingLauncher, hold, note_preempted, release
from trainer_entry import wire

JOB = "train_000007"
_TRAINER = "support.scripted_trainer"
_SERVER = Machine(slots=2, gpus=(), cpu_threads=1)


class Site(Protocol):
    """A place to run attempts, and what may happen there. `takes_place`: whether it ends attempts for others."""

    layout: Layout
    takes_place: bool

    def launcher(self) -> Launcher:
        """A launcher made anew, as by the next server: it knows nothing but what lies on the disk, and outside."""

    def place(self) -> Place:
        """What the launcher has to say of where attempts run."""

    def hold(self, reason: str) -> bool:
        """Have attempts wait that are submitted from now on; False where none ever does."""

    def release(self) -> None:
        """Have them start."""

    def take_place(self, attempt: wire.AttemptSpec) -> None:
        """End a running attempt because its place is needed."""

    def kill(self, attempt: wire.AttemptSpec) -> None:
        """End all processes of a running attempt at once, the supervising one too."""

    def close(self) -> None:
        """End whatever still runs, and leave nothing."""


def attempt_at(site: Site, behaviour: str, *, attempt: int = 1, max_steps: int = 10) -> wire.AttemptSpec:
    """An attempt with a scripted trainer that behaves as named; the spec that a reactor would make."""
    layout = site.layout
    job = msgspec.structs.replace(
        job_spec(JOB),
        output_name=behaviour,
        output_dir=str(layout.models / JOB),
        checkpoint_dir=str(layout.checkpoints(JOB)),
        model_path=str(layout.root),
        parameters=wire.TrainingParameters(max_steps=max_steps),
        grace_seconds=5,
    )
    return wire.AttemptSpec(job=job, attempt=attempt, token=os.urandom(16).hex(), cpu_threads=1)


def said_in(spool: Path) -> list[wire.AnyTrainerMessage]:
    """The whole lines of a spool."""
    lines = spool.read_bytes().split(b"\n")[:-1] if spool.exists() else []
    return [msgspec.json.decode(line, type=wire.AnyTrainerMessage) for line in lines]


class LocalSite:
    """This machine."""

    takes_place = False

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "data")
        self.layout.make_folders()
        self._tokens: set[str] = set()

    def launcher(self) -> Launcher:
        return self._local()

    def _local(self) -> LocalLauncher:
        return LocalLauncher(self.layout, module=_TRAINER, command=command)

    def place(self) -> Place:
        return self.launcher().place(_SERVER)

    def hold(self, reason: str) -> bool:  # noqa: ARG002 - none waits
        return False

    def release(self) -> None:
        raise AssertionError("nothing waits here")

    def take_place(self, attempt: wire.AttemptSpec) -> None:  # noqa: ARG002 - none is
        raise AssertionError("no place is taken here")

    def kill(self, attempt: wire.AttemptSpec) -> None:
        for pid in processes_of(attempt.token):
            os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for path in self.layout.jobs.glob("*/attempt-*/spec.json"):
            for pid in processes_of(msgspec.json.decode(path.read_bytes(), type=wire.AttemptSpec).token):
                os.kill(pid, signal.SIGKILL)


class WaitingSite(LocalSite):
    """The launcher of tests whose attempts wait."""

    takes_place = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._cluster = folder / "cluster"

    def launcher(self) -> Launcher:
        return WaitingLauncher(self._local(), self._cluster)

    def hold(self, reason: str) -> bool:
        hold(self._cluster, reason)
        return True

    def release(self) -> None:
        release(self._cluster)

    def take_place(self, attempt: wire.AttemptSpec) -> None:
        note_preempted(self._cluster, attempt.job.job_id, attempt.attempt)
        for pid in processes_of(attempt.token):
            if _TRAINER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[2:3]:
                os.kill(pid, signal.SIGTERM)


SITES: dict[str, Callable[[Path], Site]] = {"local": LocalSite, "waiting": WaitingSite, "slurm": SlurmSite}
if "MODELFORGE_TESTS_LATE" in os.environ:
    SITES["late"] = LateSite
