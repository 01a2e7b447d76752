"""`modelforge events` and `modelforge state`: the log of a running server, and what it comes to."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from cyclopts import Parameter

from modelforge.cli.answers import Events, LoggedRecord
from modelforge.cli.connection import connect, path_of
from modelforge.cli.flags import LOCAL, AtServer
from modelforge.cli.screen import say, say_json
from modelforge.server_answers import decoded

_AGAIN_SECONDS = 0.5
_MICROS = 1_000_000


async def events(
    *,
    after: Annotated[int, Parameter(help="only what comes after this position")] = 0,
    stream: Annotated[str | None, Parameter(help="only of this stream, such as train_000003")] = None,
    kind: Annotated[str | None, Parameter(name="--type", help="only of this type, such as TrainingFailed")] = None,
    limit: Annotated[int, Parameter(help="at most so many; with -f there is no end")] = 100,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], help="go on with what comes, until Ctrl-C")] = False,
    server: AtServer = LOCAL,
) -> int:
    """Print the records of the log, one a line; --json has all of each."""
    async with connect(server) as client:
        while True:
            path = path_of("events", after=after, stream=stream, type=kind, limit=limit)
            answer = await client.ask("GET", path)
            page = decoded(answer, Events, server.url)
            for record in page.events:
                _print(record, as_json=server.json)
            after = page.last_position
            if not follow:
                if not page.events and not server.json:
                    say("There is no such record." if stream or kind or after else "There is no record.")
                if page.has_more and not server.json:
                    say(f"There are more: --after {after} goes on, --limit takes up to 10000.")
                return 0
            if not page.has_more:
                await asyncio.sleep(_AGAIN_SECONDS)


def _print(record: LoggedRecord, *, as_json: bool) -> None:
    if as_json:
        say_json(msgspec.json.encode(record))
        return
    moment = datetime.fromtimestamp(record.at / _MICROS, UTC).strftime("%Y-%m-%d %H:%M:%S")
    say(f"{record.position:>7}  {moment}  {record.kind:<7}  {record.type:<22}  {record.stream}  by {record.actor}")


async def state(
    *,
    at: Annotated[
        int | None, Parameter(help="as it stood at this position of the log; as it stands by default")
    ] = None,
    server: AtServer = LOCAL,
) -> int:
    """Print status, models and datasets as JSON, as they stand or stood."""
    async with connect(server) as client:
        say_json(await client.ask("GET", path_of("state", at=at)))
    return 0
