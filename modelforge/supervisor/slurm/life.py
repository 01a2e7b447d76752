"""Whether an attempt waits, runs or is gone, by what Slurm says and by what its folder shows.

Gone is an attempt that has reported its end, and whose spool is to be seen up to there; or that Slurm has brought to
one, and whose heartbeat stands still; or of which neither Slurm nor a heartbeat shows anything for 90 s, while Slurm
answers. It is revoked before that is said: whoever of it lives on unseen, or is begun by a controller that forgot its
end, leaves at once. A job that Slurm has forgotten before any node began it is submitted again: its name and its claim
see to it that it runs once.
"""

import asyncio
from typing import TYPE_CHECKING, Literal

import structlog

from modelforge.supervisor.slurm.commands import JobRow, Slurm, SlurmError
from modelforge.supervisor.slurm.hand_over import HandOver
from modelforge.supervisor.slurm.queue import Look, Queue
from modelforge.supervisor.slurm.signs import Claim, Signs, StepExit
from modelforge.supervisor.slurm.standstill import Standstill
from modelforge.supervisor.slurm.states import waiting_reason

if TYPE_CHECKING:
    from modelforge.domain.failure_causes import Cause

_log = structlog.get_logger()
State = Literal["waiting", "running", "gone"]
_LOOK_SECONDS = 0.25
"""Between two looks into the folder."""
_WAITING_LOOK_SECONDS = 1.0
"""The same while Slurm says why the job waits: there may be hundreds."""
_UNSEEN_SECONDS = 90.0
"""Neither Slurm nor a heartbeat has shown life for so long: it is gone."""
_FORGOTTEN_SECONDS = 15.0
"""A job that nobody has begun and that Slurm answers for so long not to know was forgotten."""
_STILL_SECONDS = 3.0
"""A heartbeat that stood still for so long after its revocation, of a job whose processes Slurm has killed."""
_STILL_ON_LOST_NODE_SECONDS = 30.0
"""The same on a node that Slurm cannot reach: its processes may live."""
_LATE_SECONDS = 2.0
"""A claim, and a report, may be seen so much later than Slurm says that the job is over."""
_OTHER_NODES_SECONDS = 10.0
"""After the first node's report: the others leave."""
_DRAINING_SECONDS = 90.0
"""After a report: so much later at most a shared file system shows the last of the spool."""
_SETTLING_SECONDS = 5.0
"""Slurm knows so long after a step's end how the job ended."""
_STARTING_SECONDS = 5.0
"""A job that left the queue so long ago, and that no node has claimed yet, says so."""
_OVERTIME_SECONDS = 60.0
"""After the grace of a stop: who is still there then is killed by Slurm."""


class Life:
    """One attempt, looked at from outside. `last_row`: its job as Slurm last had it, the one that has the claim.

    `hand_over`: what has it taken by Slurm, again where that has forgotten it, or did not take it for now.
    `given_up`: why, where its job did not end, or not by itself. `is_in_queue`: all that there is of it waits.
    """

    def __init__(self, signs: Signs, name: str, queue: Queue, slurm: Slurm, hand_over: HandOver) -> None:
        self.signs = signs
        self.name = name
        self.hand_over = hand_over
        self.has_begun = False
        self.last_row: JobRow | None = None
        self.given_up: Cause | None = None
        self.is_in_queue = False
        self._reason = ""
        self._queue = queue
        self._slurm = slurm
        self._clock = asyncio.get_running_loop().time
        self._looked: Look | None = None
        self._looking: asyncio.Task[Look] | None = None
        self._heartbeat = b""
        self._beat_at = self._clock()
        self._seen_at = self._clock()
        self._over_at: float | None = None
        self._standstill = Standstill(self._clock())
        self._in_queue_at = self._clock()
        self._stop_at: float | None = None
        self._reported_at: float | None = None
        self._claim: Claim | None = None
        self._has_other_nodes: bool | None = None
        self._is_revoked = False
        self._is_hidden = False

    @property
    def waits_for(self) -> str:
        """Why it waits for its start, in plain words with Slurm's own; the empty text where that is not known."""
        return self.hand_over.reason or waiting_reason(self._reason)

    async def look(self) -> State:
        """What it is now, a moment later than at the last call; as before where its folder cannot be read."""
        await asyncio.sleep(_WAITING_LOOK_SECONDS if self.waits_for else _LOOK_SECONDS)
        try:
            state = await self._look()
        except OSError as error:
            if not self._is_hidden:
                _log.warning("attempt_not_seen", job=self.name, error=str(error))
            self._is_hidden = True
            return self._as_before
        self._is_hidden = False
        return state

    async def _look(self) -> State:
        look = self._newest_look()  # before the folder: what Slurm said is read beside files that are as new
        self._claim, report, heartbeat, stopped = await asyncio.to_thread(self._read)
        now = self._clock()
        if report is not None or self._claim is not None:
            self.has_begun = True
        if heartbeat != self._heartbeat:
            self._heartbeat, self._beat_at = heartbeat, now
        rows = None if look is None else look.of(self.name)
        alive = self._take(rows or ())
        if report is not None:
            return await self._conclude_report(report, now, alive=alive)
        if rows is None:
            return self._as_before
        if stopped and alive:
            await self._end_overtime(now)
        return await self._conclude(rows, now, alive=alive, stopped=stopped)

    async def settle(self) -> None:
        """Have Slurm say how it sees the end of an attempt that has reported one, where it does so soon."""
        deadline = self._clock() + _SETTLING_SECONDS
        while self._clock() < deadline:
            rows = (await self._queue.look(anew=True)).of(self.name)
            if rows is not None and (not self._take(rows) or self.is_in_queue):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    def _newest_look(self) -> Look | None:
        """The newest look at the queue that there is; another one is always under way."""
        if self._looking is not None and self._looking.done():
            self._looked, self._looking = self._looking.result(), None
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._queue.look())
        return self._looked

    def _look_anew(self) -> None:
        """Conclude nothing from a look that began before what was done here just now."""
        if self._looking is not None:
            self._looking.cancel()
        self._looked = None
        self._looking = asyncio.get_running_loop().create_task(self._queue.look(anew=True))

    def _read(self) -> tuple[Claim | None, StepExit | None, bytes, bool]:
        signs = self.signs
        if self._has_other_nodes is None:
            self._has_other_nodes = signs.nodes > 1
        return signs.claim, signs.exit, signs.heartbeat, signs.stop_was_asked

    def _take(self, rows: tuple[JobRow, ...]) -> bool:
        """Remember the job that has the claim, or the last one; whether one of the name is not over."""
        alive = [row for row in rows if row.state.phase != "over"]
        self.is_in_queue = bool(alive) and all(row.state.phase == "waiting" for row in alive)
        if rows:
            claimed = [row for row in rows if self._claim is not None and row.job_id == str(self._claim.slurm_id)]
            self.last_row = (claimed or alive or rows)[-1]
            self._reason = self._reason_of(alive[-1]) if alive and not self.has_begun else ""
        return bool(alive)

    def _reason_of(self, row: JobRow) -> str:
        """Why a job waits that no node has claimed, as Slurm has it."""
        if row.state.phase == "waiting":
            self._in_queue_at = self._clock()
            return row.reason
        return row.state.name if self._clock() > self._in_queue_at + _STARTING_SECONDS else ""

    async def _conclude_report(self, report: StepExit, now: float, *, alive: bool) -> State:
        """It says that it has ended: other nodes leave then, and what it said last may be seen later."""
        self._reported_at = self._reported_at or now
        if alive and self._has_other_nodes and now < self._reported_at + _OTHER_NODES_SECONDS:
            return "running"
        seen = await asyncio.to_thread(lambda: self.signs.spool_bytes)
        if seen < report.spool_bytes:
            if now < self._reported_at + _DRAINING_SECONDS:
                return "running"
            _log.warning("spool_not_seen_whole", job=self.name, bytes=seen, of=report.spool_bytes)
        return "gone"

    async def _conclude(self, rows: tuple[JobRow, ...], now: float, *, alive: bool, stopped: bool) -> State:
        if alive:
            self._seen_at, self._over_at = now, None
            self.hand_over.is_seen()
            return await self._end_still(rows, now)
        if rows and (self.has_begun or not self.hand_over.not_taken):
            return await self._conclude_end(now)
        return await self._conclude_absence(now, stopped=stopped)

    async def _conclude_end(self, now: float) -> State:
        """Slurm says that it is over, and no report is there."""
        self._over_at = now if self._over_at is None else self._over_at
        if now < self._over_at + _LATE_SECONDS:
            return self._as_before
        if await self._revoke():
            return self._as_before
        if not self.has_begun:
            return "gone"
        lost = self.last_row is not None and self.last_row.state.cause == "NodeFailed"
        still = _STILL_ON_LOST_NODE_SECONDS if lost else _STILL_SECONDS
        return "gone" if now > max(self._over_at, self._beat_at) + still else "running"

    async def _conclude_absence(self, now: float, *, stopped: bool) -> State:
        """Slurm answers, and has no job of this name, or none but those that another one was to replace."""
        self._over_at = None
        if self.has_begun:
            if now < max(self._seen_at, self._beat_at) + _UNSEEN_SECONDS:
                return "running"
        elif not self.hand_over.refused:
            if not self._is_due(now, stopped=stopped):
                return "waiting"
            if not stopped:
                self._seen_at = now
                await self.hand_over.again()
                self._look_anew()
                return "waiting"
        return self._as_before if await self._revoke() else "gone"

    def _is_due(self, now: float, *, stopped: bool) -> bool:
        """Whether what waits nowhere is to be submitted again, or to be given up where it was stopped."""
        if self.hand_over.not_taken:
            return stopped or self.hand_over.is_due
        return now >= self._seen_at + _FORGOTTEN_SECONDS

    @property
    def _as_before(self) -> State:
        return "running" if self.has_begun else "waiting"

    async def _revoke(self) -> bool:
        """Revoke it, once; whether that was now.

        It is looked at again then: a shared folder that is changed here is seen as it is.
        """
        if self._is_revoked:
            return False
        await asyncio.to_thread(self.signs.revoke)
        self._is_revoked = True
        return True

    async def _end_still(self, rows: tuple[JobRow, ...], now: float) -> State:
        """Have Slurm kill what stands still, as where a node hangs; gone is what it cannot kill."""
        is_revoked = self._is_revoked
        cause = self._standstill.cause(rows, self._beat_at, now, has_begun=self.has_begun, is_revoked=is_revoked)
        if cause is None:
            return self._as_before
        is_ending = self._standstill.stage == "ending"
        if is_revoked or not is_ending:
            self.given_up = self.given_up or cause
        if is_revoked and is_ending:
            return "gone"
        await self._revoke()
        await self._cancel()
        return self._as_before

    async def _end_overtime(self, now: float) -> None:
        """Have Slurm kill what was asked to stop and has had its grace."""
        if self._stop_at is None:
            spec = await asyncio.to_thread(lambda: self.signs.spec)
            self._stop_at = now + (0 if spec is None else spec.job.grace_seconds) + _OVERTIME_SECONDS
        if now > self._stop_at:
            self._stop_at = now + _OVERTIME_SECONDS
            await self._cancel()

    async def _cancel(self) -> None:
        try:
            await self._slurm.cancel(self.name)
        except SlurmError as error:
            _log.warning("slurm_not_told", job=self.name, error=str(error))
