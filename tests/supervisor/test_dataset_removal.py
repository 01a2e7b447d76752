"""The files of a deleted dataset, and uploads of the same bytes meanwhile."""

import asyncio
from pathlib import Path

from support.running_log import ONE_SLOT, RunningLog, running_log
from support.scenario import SHA256, register_dataset

from modelforge.datasets.store import DatasetStore
from modelforge.domain.dataset import DeleteDataset
from modelforge.layout import Layout
from modelforge.supervisor.local import LocalLauncher
from modelforge.supervisor.reactor import Reactor


async def _no_playground() -> None:
    """Nothing else is on a GPU."""


async def until_removed(running: RunningLog, filename: str) -> None:
    while running.state.datasets[filename].removing:  # noqa: ASYNC110 - the state has no event to wait for
        await asyncio.sleep(0.01)


async def test_what_is_put_there_again_before_it_is_on_record_is_not_removed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.make_folders()
    async with running_log(layout.log) as running:
        await running.submit(register_dataset())
        store = DatasetStore(layout, running.handler)
        reactor = Reactor(running.handler, LocalLauncher(layout), layout, store, ONE_SLOT, 60.0, _no_playground)
        async with store.lock:  # as an upload does, from when its file lies there until it is on record
            layout.dataset(SHA256).write_bytes(b"the same bytes")
            await running.submit(DeleteDataset(filename="three_lines.jsonl"))
            reactor.take(running.batches[-1])
            await asyncio.sleep(0.1)
            await running.submit(register_dataset(filename="again.jsonl"))
        await until_removed(running, "three_lines.jsonl")
        assert layout.dataset(SHA256).read_bytes() == b"the same bytes"
        await running.submit(DeleteDataset(filename="again.jsonl"))
        reactor.take(running.batches[-1])
        await until_removed(running, "again.jsonl")
        assert not layout.dataset(SHA256).exists()
        await reactor.close()
