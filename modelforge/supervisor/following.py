"""Takes in what a trainer writes to its spool until it and all its processes are gone."""

import asyncio
import math
from collections.abc import Callable

from modelforge.domain import job
from modelforge.supervisor.file_changes import FileChanges
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.reporting import Reporting
from modelforge.supervisor.spool import Batch, Spool

_READ_SECONDS = 0.1
"""Between two looks at a spool where nobody tells that it was written to."""
_LOOK_SECONDS = 1.0
"""The same where somebody does: for whether the trainer lives."""
_PAUSE_SECONDS = 0.02
"""Between two reads: what is written meanwhile becomes one record."""
_LAST_WORD_SECONDS = 60.0
"""A trainer that has said its last word has this long to leave before it is asked to."""


class Following:
    """Follows attempts' spools, each in the caller's task."""

    def __init__(self, reporting: Reporting, launcher: Launcher, stalled_seconds: float) -> None:
        """`stalled_seconds`: of a trainer that neither says a word nor shows that it lives."""
        self._reporting = reporting
        self._launcher = launcher
        self._stalled_seconds = stalled_seconds
        self._changes = FileChanges()

    def close(self) -> None:
        """Watch no spool any more."""
        self._changes.close()

    async def follow(self, job_id: str, attempt: int) -> None:
        """Report what is written, from where the log ends, until no process of the attempt is left."""
        gone = asyncio.get_running_loop().create_task(self._launcher.wait(job_id, attempt))
        try:
            await self._read(job_id, attempt, gone)
            gone.result()
        finally:
            gone.cancel()

    async def _read(self, job_id: str, attempt: int, gone: asyncio.Task[None]) -> None:
        path = self._launcher.spool(job_id, attempt)
        spool = Spool(path, self._reporting.state.jobs[job_id].offset)
        clock = asyncio.get_running_loop().time
        silence = _Timer(clock, self._stalled_seconds)
        farewell: _Timer | None = None
        with self._changes.watching(path) as written:
            while True:
                written.clear()
                ended = gone.done()  # before the read: what was written before the end is read after it
                batch = await spool.next(ended=ended)
                if batch is not None:
                    await self._report_lines(job_id, attempt, batch)
                    silence.restart()
                    if not batch.more:
                        await asyncio.wait({gone}, timeout=_PAUSE_SECONDS)
                elif ended:
                    return
                else:
                    await written.wait(gone, _LOOK_SECONDS if written.tells else _READ_SECONDS)
                    await self._report_silence(job_id, attempt, spool, silence)
                if farewell is None and self._reporting.state.jobs[job_id].last_word is not None:
                    farewell = _Timer(clock, _LAST_WORD_SECONDS)
                elif farewell is not None and farewell.is_over:
                    farewell.stop()
                    await self._launcher.stop(job_id, attempt)

    async def _report_lines(self, job_id: str, attempt: int, batch: Batch) -> None:
        lines = job.ReportLines(
            job_id=job_id,
            attempt=attempt,
            offset=batch.offset,
            messages=batch.messages,
            quarantined=batch.quarantined,
        )
        await self._reporting.submit(lines, "trainer")

    async def _report_silence(self, job_id: str, attempt: int, spool: Spool, silence: "_Timer") -> None:
        if spool.was_touched():
            silence.restart()
        elif silence.is_over:
            await self._reporting.submit(job.ReportSilence(job_id=job_id, attempt=attempt))
            silence.restart()


class _Timer:
    """A time that ends, by the event loop's clock."""

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._end = clock() + seconds

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._clock() > self._end

    def restart(self) -> None:
        """Begin anew."""
        self._end = self._clock() + self._seconds

    def stop(self) -> None:
        """Never be over any more."""
        self._end = math.inf
