"""Whether an attempt stands still: for Slurm its job runs, or is being ended, and nothing in its folder changes.

What Slurm suspends, or makes ready, stands still by right.
"""

from typing import Literal

from modelforge.domain.failure_causes import Cause
from modelforge.supervisor.slurm.commands import JobRow

_STILL_WHILE_RUNNING_SECONDS = 180.0
"""A heartbeat that stands still for so long, while Slurm says that the job runs: it hangs."""
_UNCLAIMED_SECONDS = 600.0
"""A job that runs for Slurm for so long, and that no node has claimed: it hangs before its start."""
_STILL_WHILE_ENDING_SECONDS = 90.0
"""A heartbeat that stands still for so long while Slurm ends the job: it is not saving a checkpoint any more."""
_STILL_WHILE_REVOKED_SECONDS = 30.0
"""The same after its revocation: who of it lived has seen that."""
_UNWATCHED_SECONDS = 30.0
"""Between two looks that are so far apart nobody knows what the heartbeat did."""
Stage = Literal["starting", "running", "ending"]
_HUNG = Cause(
    kind="NodeFailed",
    message="The job ran for Slurm, but its heartbeat stood still for minutes: its node or its disk hung.",
)
_UNCLAIMED = Cause(
    kind="NodeFailed",
    message="The job ran for Slurm, but no trainer was started for ten minutes: its node, or a disk of it, hung.",
)
_UNENDED = Cause(
    kind="NodeFailed",
    message="Slurm did not come to an end with the job, and its heartbeat stood still for minutes: its node hung, or "
    "was long in clearing up after it.",
)


class Standstill:
    """One attempt's. `stage`: of what Slurm says of its job; None where that may stand still."""

    def __init__(self, now: float) -> None:
        self.stage: Stage | None = None
        self._since = now
        self._watched_at = now

    def cause(
        self, rows: tuple[JobRow, ...], beat_at: float, now: float, *, has_begun: bool, is_revoked: bool
    ) -> Cause | None:
        """Why it is to be given up now; None where it is not, or was a moment ago. `beat_at`: its last heartbeat."""
        was_watched = now < self._watched_at + _UNWATCHED_SECONDS
        self._watched_at = now
        stage = _stage(rows, has_begun=has_begun)
        if stage != self.stage or not was_watched:
            self.stage, self._since = stage, now
        if stage is None:
            return None
        seconds, cause = {
            "starting": (_UNCLAIMED_SECONDS, _UNCLAIMED),
            "running": (_STILL_WHILE_RUNNING_SECONDS, _HUNG),
            "ending": (_STILL_WHILE_REVOKED_SECONDS if is_revoked else _STILL_WHILE_ENDING_SECONDS, _UNENDED),
        }[stage]
        if now < max(self._since, beat_at) + seconds:
            return None
        self._since = now
        return cause


def _stage(rows: tuple[JobRow, ...], *, has_begun: bool) -> Stage | None:
    if any(row.state.name == "RUNNING" for row in rows):
        return "running" if has_begun else "starting"
    phases = {row.state.phase for row in rows} - {"over"}
    if has_begun:  # what has begun and waits again was put back, and does not begin a second time
        phases -= {"waiting"}
    return "ending" if phases <= {"ending"} else None
