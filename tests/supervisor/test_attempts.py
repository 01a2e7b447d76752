"""How an attempt's end is reported, where the disk that its files are on fails, or has lost them."""

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.scenario import JOB, SAVED, SLURM_JOB, attempt_submitted, ended, finished, given, launching, requested

from modelforge.domain import job
from modelforge.domain.failure_causes import Cause
from modelforge.domain.job import Reference
from modelforge.domain.messages import Actor, Command, Event, Report
from modelforge.layout import Layout
from modelforge.supervisor import patient_reads
from modelforge.supervisor.attempts import Attempts
from modelforge.supervisor.launcher import Ending

SPAWNED = job.AttemptSpawned(job_id=JOB, attempt=1, reference=SLURM_JOB)


class Heard:
    """A log with one job, a spool without a line, and a launcher whose attempt has ended."""

    def __init__(self, *past: Event, ending: Ending) -> None:
        self.state = given(requested(), launching(), attempt_submitted(), SPAWNED, *past).state
        self.reports: list[Command | Report] = []
        self._ending = ending

    async def submit(self, message: Command | Report, actor: Actor = "supervisor", cause: int | None = None) -> None:  # noqa: ARG002 - as of any
        self.reports.append(message)

    async def follow(self, job_id: str, attempt: int) -> None:
        pass

    def know(self, job_id: str, attempt: int, reference: Reference) -> None:
        pass

    async def ending(self, job_id: str, attempt: int) -> Ending:  # noqa: ARG002 - there is one
        return self._ending


async def end_of(heard: Any, folder: Path) -> job.ReportGone:
    layout = Layout(folder / "data", folder / "shared")
    await Attempts(heard, heard, layout, heard).take_up(JOB, 1)
    (report,) = heard.reports
    assert isinstance(report, job.ReportGone)
    return report


async def test_a_disk_that_fails_while_a_model_is_looked_for_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model" / "weights"
    weights.parent.mkdir()
    weights.write_bytes(b"1234567")
    fails, stat = [errno.ESTALE, errno.EIO], Path.stat

    def failing(path: Path, *, follow_symlinks: bool = True) -> object:
        if path == weights and fails:
            raise OSError(fails.pop(), "It fails")
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", failing)
    monkeypatch.setattr(patient_reads, "RETRY_SECONDS", 0.01)
    word = msgspec.structs.replace(
        finished(1), model=msgspec.structs.replace(SAVED, path=str(weights.parent), size_bytes=7)
    )
    report = await end_of(Heard(ended(word), ending=Ending(exit=None, last_words="")), tmp_path)
    assert (report.job_id, fails) == (JOB, [])


async def test_an_attempt_that_the_log_has_as_started_is_never_said_not_to_have_been(tmp_path: Path) -> None:
    before = Cause(kind="LaunchFailed", message="The job ended before a trainer was started")
    report = await end_of(Heard(ending=Ending(exit=None, last_words="", cause=before)), tmp_path)
    assert report.cause is not None
    assert report.cause.kind == "NodeFailed"
    assert "had started" in report.cause.message
