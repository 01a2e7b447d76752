"""What a server and its data directory look like to somebody who knows only the API, the files and /proc."""

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from modelforge.event_log.packing import unpacked
from support.running_server import RunningServer

ACTIVE = frozenset({"starting", "training", "stopping"})
FINAL = frozenset({"completed", "failed", "stopped"})
_COLUMNS = "position, stream, version, kind, type, at, cause, actor, coalesce(packed, data), digest"
_PAGE = 10_000
_TOKEN = b"MODELFORGE_TOKEN="
_SILENCE_SECONDS = 0.03
_ANSWER_SECONDS = 10.0


class Row(NamedTuple):
    """A record as it lies in the file; `raw` is its data as text, `data` what that says."""

    position: int
    stream: str
    version: int
    kind: str
    type: str
    at: int
    cause: int | None
    actor: str
    raw: str
    digest: str
    data: dict[str, Any]


class Living(NamedTuple):
    """A process that is no zombie."""

    pid: int
    is_shim: bool


def rows_of(data_dir: Path) -> list[Row]:
    """The whole log, read from its file."""
    uri = (data_dir / "events.sqlite").absolute().as_uri()
    with closing(sqlite3.connect(f"{uri}?mode=ro", uri=True)) as connection:
        found = connection.execute(f"SELECT {_COLUMNS} FROM records ORDER BY position").fetchall()  # noqa: S608 - constants
    whole = ((*row[:8], row[8] if isinstance(row[8], str) else unpacked(row[8]).decode(), row[9]) for row in found)
    return [Row._make((*columns, json.loads(columns[8]))) for columns in whole]


def answered(server: RunningServer, path: str) -> Any:
    """What a GET gives that has to succeed."""
    answer = server.get(path)
    assert answer.status_code == 200, f"GET {path} gave {answer.status_code}: {answer.text}"
    return answer.json()


def jobs(server: RunningServer) -> list[dict[str, Any]]:
    """Every job, newest first."""
    found: list[dict[str, Any]] = answered(server, "/api/jobs?limit=1000")["jobs"]
    return found


def head(server: RunningServer) -> int:
    """The log's last position, as the API has it."""
    return int(answered(server, "/api/events?limit=1&type=none")["last_position"])


def events(server: RunningServer) -> Iterator[dict[str, Any]]:
    """The log as the API shows it."""
    yield from _pages(server, "/api/events", "events", 0)


def metrics(server: RunningServer, job_id: str) -> list[dict[str, Any]]:
    """The steps of a job as the API shows them."""
    return list(_pages(server, f"/api/jobs/{job_id}/metrics", "metrics", 0))


def _pages(server: RunningServer, path: str, name: str, after: int) -> Iterator[dict[str, Any]]:
    more = True
    while more:
        page = answered(server, f"{path}?after={after}&limit={_PAGE}")
        yield from page[name]
        after, more = page["last_position"], page["has_more"]


def spool(attempt: Path) -> list[dict[str, Any]]:
    """What the trainer wrote, by its own file; a line that has no end yet is none."""
    try:
        text = (attempt / "stdout.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


def logged_numbers(rows: list[Row], job_id: str, attempt: int) -> list[int]:
    """The sequence numbers of an attempt's messages that the log has, in its order."""
    numbers: list[int] = []
    for row in rows:
        if row.stream == job_id and row.data.get("attempt") == attempt and "seq" in row.data:
            steps = row.data.get("steps")
            numbers += [row.data["seq"]] if steps is None else [step["seq"] for step in steps]
    return numbers


def standing_by(data_dir: Path) -> list[str]:
    """The tokens of the trainers that were started ahead for a data directory, whether they have an attempt by now."""
    found = set[str]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if b"trainer_entry.shim" in words and b"--standby" in words:
                folder = Path(words[words.index(b"--standby") + 1].decode())
                found |= {folder.name} if folder.parent == data_dir / "standby" else set()
    return sorted(found)  # of one that has just forked there are two processes with its words


def living() -> dict[str, list[Living]]:
    """The living processes of any attempt, by the token that they carry; a zombie's environment is empty."""
    found: dict[str, list[Living]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
                is_shim = b"trainer_entry.shim" in (entry / "cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            for word in words:
                if word.startswith(_TOKEN):
                    found[word.removeprefix(_TOKEN).decode()].append(Living(int(entry.name), is_shim))
    return found


def tokens(data_dir: Path) -> dict[str, tuple[str, int]]:
    """The attempt that each token in a data directory stands for."""
    return {
        json.loads(path.read_bytes())["token"]: (path.parts[-3], int(path.parts[-2].removeprefix("attempt-")))
        for path in (data_dir / "jobs").glob("*/attempt-*/spec.json")
    }


def heard(server: RunningServer, after: int, until: int) -> list[dict[str, Any]]:
    """What a subscriber hears after a position, up to another and a moment more."""
    return asyncio.run(_heard(server.url, after, until))


async def _heard(url: str, after: int, until: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/ws/training?after={after}") as socket:
        reached = after >= until
        while True:
            try:
                seconds = _SILENCE_SECONDS if reached else _ANSWER_SECONDS
                messages.append(await socket.receive_json(timeout=seconds))
            except TimeoutError:
                return messages
            reached = messages[-1]["position"] >= until
