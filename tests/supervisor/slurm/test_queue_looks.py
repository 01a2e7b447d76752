"""Looks at Slurm's queue that are shared: what each of them may be taken for."""

import asyncio

from modelforge.supervisor.slurm.commands import JobRow, Slurm
from modelforge.supervisor.slurm.queue import Queue
from modelforge.supervisor.slurm.states import job_state


class Answering(Slurm):
    """A queue to which a job comes while it is looked at for the first time."""

    def __init__(self) -> None:
        super().__init__({})
        self.jobs_there: tuple[JobRow, ...] = ()
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def jobs(self) -> tuple[JobRow, ...]:
        self.asked += 1
        there = self.jobs_there
        await self.may_answer.wait()
        return there


async def test_a_look_that_is_asked_for_anew_begins_after_it_was_asked_for() -> None:
    slurm = Answering()
    queue = Queue(slurm, 60.0)
    before = asyncio.create_task(queue.look())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert slurm.asked == 1
    slurm.jobs_there = (JobRow(job_id="7", name="mf-1", state=job_state("RUNNING"), nodes="n1", reason=""),)
    anew = [asyncio.create_task(queue.look(anew=True)) for _ in range(3)]
    await asyncio.sleep(0)
    slurm.may_answer.set()
    assert (await before).of("mf-1") == ()
    assert [[row.job_id for row in look.of("mf-1") or ()] for look in await asyncio.gather(*anew)] == [["7"]] * 3
    assert slurm.asked == 2
