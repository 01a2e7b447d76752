"""A process of the playground's worker that is gone before it can be asked."""

import asyncio

import pytest
import uvloop

from modelforge.inference_process import InferenceProcess, WorkerEnded
from trainer_entry import wire

PROMPT = wire.Generate(
    id=1, model_path="m", adapter_path=None, prompt="x", max_new_tokens=1, temperature=0.0, top_p=1.0
)


def test_a_worker_that_takes_nothing_any_more_has_ended() -> None:
    async def scenario() -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec("sleep", "60", stdin=pipe, stdout=pipe)
        worker = InferenceProcess(process)
        assert process.stdin is not None
        process.stdin.close()
        await asyncio.sleep(0.05)
        asking = asyncio.create_task(anext(worker.ask(PROMPT)))
        await asyncio.sleep(0.05)
        await worker.end()
        with pytest.raises(WorkerEnded):
            await asking

    uvloop.run(scenario())
