"""An attempt's job on its way into Slurm's queue, where it may be taken at once, not for now, or not at all.

What Slurm does not take for now is submitted again, as is what it has forgotten: its name and its claim see to it that
it runs once, and it takes the place of what waits of it.
"""

import asyncio
import contextlib

import structlog

from modelforge.domain.failure_causes import Cause
from modelforge.errors import LaunchFailed
from modelforge.supervisor.patient_reads import until_it_answers
from modelforge.supervisor.slurm.commands import (
    Slurm,
    SlurmError,
    SlurmMissing,
    SlurmRefused,
    SlurmTakesNone,
    SlurmUnclear,
    SlurmUnreachable,
)
from modelforge.supervisor.slurm.queue import Queue
from modelforge.supervisor.slurm.signs import Claim, Signs
from modelforge.supervisor.slurm.states import not_taken_reason

_log = structlog.get_logger()
NOT_KNOWN = "0"
"""In the place of the id of a job that Slurm has not taken yet."""
_RETRY_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 30.0
"""Between two tries to have a job taken that Slurm does not take for now."""
_UNCLEAR_TRIES = 15
"""So often one after the other sbatch fails in words that nobody knows before a job is given up."""


class HandOver:
    """Hands one attempt's script over to Slurm. `not_taken`: why Slurm did not take it the last time, in its words.

    `refused`: why Slurm never will; it never begins then.
    """

    def __init__(self, signs: Signs, name: str, queue: Queue, slurm: Slurm) -> None:
        self.not_taken = ""
        self.refused = ""
        self._signs = signs
        self._name = name
        self._queue = queue
        self._slurm = slurm
        self._clock = asyncio.get_running_loop().time
        self._pause = _FIRST_PAUSE_SECONDS
        self._due_at = 0.0
        self._was_taken = True
        self._may_wait = True

    @property
    def is_due(self) -> bool:
        """Whether what was not taken is to be submitted again now."""
        return self._clock() >= self._due_at

    @property
    def reason(self) -> str:
        """Why it waits for being taken; the empty text where it does not."""
        return self.not_taken and not_taken_reason(self.not_taken)

    @property
    def cause(self) -> Cause | None:
        """Why it never began, where it was refused after it had been handed over once."""
        if not self.refused:
            return None
        forgotten = "Slurm forgot the job before it began, and did not take it again"
        what = forgotten if self._was_taken else "Slurm did not take the job"
        return Cause(kind="LaunchFailed", message=f"{what}: {self.refused}")

    def is_seen(self) -> None:
        """Note that Slurm has it."""
        self.not_taken, self._pause, self._was_taken = "", _FIRST_PAUSE_SECONDS, True

    async def first(self, script: str, give_up_seconds: float) -> str:
        """The id that Slurm gave the job; `NOT_KNOWN` where it takes none for now.

        Where it is not known whether it was taken, it is looked for by its name.

        Raises:
            LaunchFailed: it was not taken, or is given up: should it begin all the same, it leaves at once.
        """
        deadline, unclear = self._clock() + give_up_seconds, 0
        while True:
            try:
                return await self._slurm.submit(script)
            except SlurmTakesNone as error:
                self._was_taken = False
                self._put_off(error)
                return NOT_KNOWN
            except (SlurmRefused, SlurmMissing) as error:
                if begun := await self._give_up():
                    return begun
                raise LaunchFailed("Slurm did not take the job", str(error)) from error
            except SlurmUnreachable as error:
                _log.warning("slurm_unreachable", error=str(error))
                unclear = unclear + 1 if isinstance(error, SlurmUnclear) else 0
                if self._clock() > deadline or unclear >= _UNCLEAR_TRIES:
                    if begun := await self._give_up():
                        return begun
                    what = "Slurm did not take the job" if unclear else "Slurm's controller did not answer"
                    raise LaunchFailed(what, str(error)) from error
            await asyncio.sleep(_RETRY_SECONDS)
            if rows := (await self._queue.look(anew=True)).of(self._name):
                return rows[-1].job_id
            claim = await until_it_answers(lambda: self._signs.claim)
            if claim is not None:
                return str(claim.slurm_id)

    async def again(self) -> None:
        """Hand the same script over anew, in the place of what waits unseen: jobs of a name must not pile up."""
        script = await asyncio.to_thread((self._signs.folder / "job.sh").read_text)
        try:
            if self._may_wait:
                await self._slurm.cancel(self._name, only_waiting=True)
        except SlurmError as error:
            return self._put_off(error)
        try:
            slurm_id = await self._slurm.submit(script)
        except SlurmRefused as error:
            self.refused = str(error)
            _log.warning("slurm_job_not_submitted_again", job=self._name, error=str(error))
        except SlurmError as error:
            self._put_off(error)
        else:
            self.not_taken, self._may_wait = "", True
            _log.warning("slurm_job_submitted_again", job=self._name, slurm_id=slurm_id)
            if await asyncio.to_thread(lambda: self._signs.stop_was_asked):  # before there was a job to be cancelled
                with contextlib.suppress(SlurmError):  # then it leaves as soon as it begins
                    await self._slurm.cancel(self._name, only_waiting=True)
        return None

    def _put_off(self, error: SlurmError) -> None:
        self.not_taken, self._may_wait = str(error), not isinstance(error, SlurmTakesNone)
        self._due_at = self._clock() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        _log.warning("slurm_job_not_taken", job=self._name, error=str(error))

    async def _give_up(self) -> str:
        """See to it that nothing of a submission begins: an sbatch that failed may have been heard all the same.

        The id of a job that had begun; it leaves within a second, and its end is awaited as of any attempt.
        """
        claim = await claim_of_given_up(self._signs)
        if claim is not None:
            return str(claim.slurm_id)
        with contextlib.suppress(SlurmError):  # where it cannot be asked now, the job leaves by itself
            await self._slurm.cancel(self._name)
        return ""


async def claim_of_given_up(signs: Signs) -> Claim | None:
    """Give an attempt up, and then see whether it has begun all the same: one of both sees the other."""
    await until_it_answers(signs.give_up)
    return await until_it_answers(lambda: signs.claim)
