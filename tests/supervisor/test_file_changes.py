"""Files that are watched: what is told of them, and what where nobody tells."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.attempt_files import model_in, training
from support.recital import step, write_recital
from support.running_server import RECORDS, scripted_server

from modelforge.supervisor import file_changes
from modelforge.supervisor.file_changes import FileChanges

LONG = 3600.0


@pytest.fixture
async def changes() -> AsyncIterator[FileChanges]:
    made = FileChanges()
    yield made
    made.close()


@pytest.fixture
async def never() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def test_what_is_written_after_the_clearing_is_told_and_only_of_that_file(
    tmp_path: Path, changes: FileChanges, never: asyncio.Future[None]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.touch()
    with changes.watching(one) as watch, changes.watching(other) as silent:
        for each in (watch, silent):
            each.clear()
            assert each.tells
        for text in ("a", "b"):
            one.write_text(text)
            await watch.wait(never, LONG)
            watch.clear()
        await silent.wait(never, 0)
        assert not silent.written


async def test_a_file_that_comes_later_is_told_of_from_the_next_clearing_on(
    tmp_path: Path, changes: FileChanges, never: asyncio.Future[None]
) -> None:
    path = tmp_path / "later"
    with changes.watching(path) as watch:
        watch.clear()
        assert not watch.tells
        path.touch()
        watch.clear()
        assert watch.tells
        path.write_text("a")
        await watch.wait(never, LONG)
        path.unlink()
        await asyncio.sleep(0)
        watch.clear()
        await watch.wait(never, LONG)
        assert not watch.tells


async def test_who_waits_goes_on_when_the_other_is_done(
    tmp_path: Path, changes: FileChanges, never: asyncio.Future[None]
) -> None:
    path = tmp_path / "quiet"
    path.touch()
    with changes.watching(path) as watch:
        watch.clear()
        never.set_result(None)
        await watch.wait(never, LONG)
        assert not watch.written


async def test_a_kernel_that_tells_nothing_leaves_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never: asyncio.Future[None]
) -> None:
    monkeypatch.setattr(file_changes.ctypes, "CDLL", lambda *_, **__: object())
    changes = FileChanges()
    with changes.watching(tmp_path) as watch:
        watch.clear()
        assert not watch.tells
        await watch.wait(never, 0)
    changes.close()


@pytest.mark.parametrize("flags", [("--look-seconds", "3600"), ("--read-seconds", "0.05")], ids=["told", "looks"])
def test_a_spool_is_read_when_it_is_written_to_and_where_nobody_tells_by_looks(
    tmp_path: Path, flags: tuple[str, str]
) -> None:
    server = scripted_server(tmp_path / "data", *flags)
    try:
        model = model_in(tmp_path)
        write_recital(model, [step(number, 3) for number in range(1, 4)])
        server.upload(RECORDS).raise_for_status()
        job_id = server.post("/api/start_training", training(model, "recital")).json()["job_id"]
        assert server.wait_for(job_id)["current_step"] == 3
    finally:
        server.end()
