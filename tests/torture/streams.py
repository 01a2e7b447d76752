"""Restarts of a server while followers listen: `PYTHONPATH=tests python -m torture.streams [RESTARTS]`.

A follower by WebSocket and one by server-sent events come back with their last position after each; in the end each
has what `/api/events` has, to the byte.
"""

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

import msgspec
from msgspec import Struct
from support.attempt_files import model_in, training
from support.followers import Heard, follow_events, follow_socket, page_of
from support.running_server import RECORDS, RunningServer, scripted_server

_PAGE = 10_000
_WITHOUT_END = 1_000_000


class _Record(Struct):
    kind: str
    stream: str
    position: int


def records_of(server: RunningServer) -> list[bytes]:
    """Every record of the log, as `/api/events` has it."""
    records: list[bytes] = []
    while True:
        after = position_of(records[-1]) if records else 0
        page = page_of(server.get(f"/api/events?limit={_PAGE}&after={after}").content)
        records += page
        if len(page) < _PAGE:
            return records


def position_of(record: bytes) -> int:
    """The position of a record."""
    return msgspec.json.decode(record, type=_Record).position


def events_of_jobs(records: list[bytes]) -> list[bytes]:
    """Those that have a status, which are the events of jobs."""
    read = [(msgspec.json.decode(record, type=_Record), record) for record in records]
    return [record for known, record in read if known.kind == "event" and known.stream.startswith("train_")]


async def follow_restarts(server: RunningServer, restarts: int, job_id: str) -> tuple[Heard, Heard, list[bytes]]:
    """Restart a server so many times, by SIGKILL and SIGTERM in turn, and stop the job that runs.

    What the followers heard, by server-sent events and by WebSocket, and the whole log.
    """
    by_events, by_socket = Heard(), Heard()

    async def until(by_events_has: int, by_socket_has: int) -> None:
        while by_events.position < by_events_has or by_socket.position < by_socket_has:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as group:
        followers = [
            group.create_task(follow_events(lambda: server.url, by_events, lambda _: False)),
            group.create_task(follow_socket(lambda: server.url, by_socket, lambda _: False)),
        ]
        for number in range(restarts):
            await until(by_events.position + 1, by_socket.position + 1)  # each hears something of every server
            await asyncio.to_thread(server.end, (signal.SIGKILL, signal.SIGTERM)[number % 2])
            await asyncio.to_thread(server.start)
        await asyncio.to_thread(server.post, f"/api/jobs/{job_id}/stop")
        await asyncio.to_thread(server.wait_for, job_id)
        records = await asyncio.to_thread(records_of, server)
        await until(position_of(records[-1]), position_of(events_of_jobs(records)[-1]))
        for follower in followers:
            follower.cancel()
    return by_events, by_socket, records


def main() -> None:
    """Restart, and tell what came of it."""
    restarts = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        server = scripted_server(Path(folder) / "data")
        server.upload(RECORDS).raise_for_status()
        model = model_in(Path(folder))
        job_id = server.post("/api/start_training", training(model, "waits", max_steps=_WITHOUT_END)).json()["job_id"]
        began = time.monotonic()
        try:
            by_events, by_socket, records = asyncio.run(follow_restarts(server, restarts, job_id))
        finally:
            server.end()
    for name, heard, expected in (
        ("server-sent events", by_events, records),
        ("WebSocket", by_socket, events_of_jobs(records)),
    ):
        is_same = heard.records[: len(expected)] == expected
        sys.stdout.write(
            f"{name}: {len(heard.records)} of {len(expected)} records over {heard.connections} connections, "
            f"{len(heard.words)} goodbyes, {'the same to the byte' if is_same else 'NOT THE SAME'}\n"
        )
    sys.stdout.write(f"{restarts} restarts in {time.monotonic() - began:.0f} s\n")


if __name__ == "__main__":
    main()
