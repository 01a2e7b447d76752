"""What Slurm's queue has, asked once for everybody who waits."""

import asyncio

from msgspec import Struct

from modelforge.supervisor.slurm.commands import JobRow, Slurm, SlurmError


class Look(Struct, frozen=True, gc=False):
    """One look at the queue. `rows`: by the names of jobs; None where Slurm could not be asked, and `why`."""

    rows: dict[str, tuple[JobRow, ...]] | None
    why: str = ""

    def of(self, name: str) -> tuple[JobRow, ...] | None:
        """The jobs of a name, which may be several; None where that is not known."""
        return None if self.rows is None else self.rows.get(name, ())


class Queue:
    """The queue as it was a moment ago: however many wait, Slurm is asked once in `seconds`."""

    def __init__(self, slurm: Slurm, seconds: float) -> None:
        self._slurm = slurm
        self._seconds = seconds
        self._asking: asyncio.Task[Look] | None = None
        self._asked_at = -seconds

    async def look(self, *, anew: bool = False) -> Look:
        """The newest look that is under way or to come; `anew`: one that begins now, or when that one has ended."""
        clock = asyncio.get_running_loop().time
        if anew and self._asking is not None and not self._asking.done():
            await asyncio.shield(self._asking)  # it may have begun before what is looked for
        if self._asking is None or (self._asking.done() and (anew or clock() >= self._asked_at + self._seconds)):
            self._asked_at = clock()
            self._asking = asyncio.get_running_loop().create_task(self._ask())
        elif self._asking.done():
            await asyncio.sleep(max(0.0, self._asked_at + self._seconds - clock()))
            return await self.look()
        return await asyncio.shield(self._asking)

    async def _ask(self) -> Look:
        try:
            jobs = await self._slurm.jobs()
        except SlurmError as error:  # nothing is concluded from it: who waits looks again
            return Look(None, str(error))
        rows: dict[str, tuple[JobRow, ...]] = {}
        for one in jobs:
            rows[one.name] = (*rows.get(one.name, ()), one)
        return Look(rows)
