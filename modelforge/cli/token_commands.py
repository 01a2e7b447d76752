"""`modelforge token`: made, listed and revoked by whoever owns the data directory, with a server or without one."""

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from cyclopts import Parameter
from rich.table import Column, Table

from modelforge.cli.data_commands import layout_of
from modelforge.cli.flags import DataDirectory, WrongUsage
from modelforge.cli.screen import Screen, say
from modelforge.cli.terminal import moment
from modelforge.command_handler import CommandHandler
from modelforge.connection import Connection
from modelforge.data_directory import claimed, holder_of
from modelforge.domain import access_token
from modelforge.domain.access_token import Scope
from modelforge.domain.scheduling import Machine
from modelforge.errors import BadInput, DirectoryInUse
from modelforge.event_log.sqlite import EventLog
from modelforge.http.plumbing.identities import new_token
from modelforge.http.sessions import LoginLink
from modelforge.http.tokens import MadeToken, NewToken, TokenList, TokenRevoked, create_command
from modelforge.layout import Layout
from modelforge.projections.folding import Rebuilt
from modelforge.projections.snapshot_file import SnapshotFile
from modelforge.projections.snapshots import rebuild
from modelforge.projections.tokens import TokenDetails
from modelforge.server_answers import RequestRefused
from modelforge.visible_text import visible

_OWNER = "api:owner"
_LENGTH = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


async def create(
    *,
    name: Annotated[str, Parameter(help="what it is called, in the log too")],
    scope: Annotated[Scope, Parameter(help="what it is good for")],
    expires: Annotated[str | None, Parameter(help="30d, 12h, or a moment as in 2027-01-31T12:00:00Z (never)")] = None,
    data_dir: DataDirectory = None,
) -> int:
    """Make a token; it is shown once."""
    asked = NewToken(name=name, scope=scope, expires_at=_moment(expires))

    async def here(handler: CommandHandler, _: Rebuilt) -> None:
        token = new_token()
        await handler.submit(create_command(asked, token), actor=_OWNER)
        _show(asked.name, asked.scope, token)

    async def there(client: Connection) -> None:
        made = await client.post("/api/tokens", asked, MadeToken)
        _show(made.name, made.scope, made.token)

    return await _carry_out(data_dir, here, there)


async def list_all(*, data_dir: DataDirectory = None) -> int:
    """List the tokens, less the tokens themselves."""

    async def here(_: CommandHandler, rebuilt: Rebuilt) -> None:
        _list([token.details for token in rebuilt.read_models.tokens.values()])

    async def there(client: Connection) -> None:
        _list((await client.get("/api/tokens", TokenList)).tokens)

    return await _carry_out(data_dir, here, there)


async def revoke(
    revoked: Annotated[str | None, Parameter(name="NAME", help="the token's name")] = None,
    /,
    *,
    name: Annotated[str | None, Parameter(help="the same")] = None,
    data_dir: DataDirectory = None,
) -> int:
    """Let nobody in by a token any more, at once."""
    given = [one for one in (revoked, name) if one is not None]
    if len(given) != 1:
        raise WrongUsage("No token is named" if not given else "Two tokens are named", "give one NAME.")

    async def here(handler: CommandHandler, rebuilt: Rebuilt) -> None:
        await handler.submit(access_token.RevokeToken(name=given[0]), actor=_OWNER)
        left = [one for one in rebuilt.read_models.tokens if one != given[0]]
        _say_revoked(given[0], len(left))

    async def there(client: Connection) -> None:
        await client.delete(f"/api/tokens/{quote(given[0], safe='')}", TokenRevoked)
        _say_revoked(given[0], len((await client.get("/api/tokens", TokenList)).tokens))

    return await _carry_out(data_dir, here, there)


async def link(*, data_dir: DataDirectory = None) -> int:
    """Print a link that signs one browser in, once, within the hour."""
    layout = layout_of(data_dir)
    try:
        with claimed(layout):
            raise RequestRefused(
                "No server runs", f"{layout.root} is served by none; `modelforge serve` prints a link."
            )
    except DirectoryInUse:
        async with _client(layout) as client:
            made = await client.post("/api/login_links", {}, LoginLink)
            say(f"{client.url}{made.path}")
    return 0


async def _carry_out(
    data_dir: Path | None,
    here: Callable[[CommandHandler, Rebuilt], Awaitable[None]],
    there: Callable[[Connection], Awaitable[None]],
) -> int:
    """Do it in the log itself, or by the server that has it."""
    os.umask(0o077)
    layout = layout_of(data_dir)
    try:
        async with _writer(layout) as (handler, rebuilt):
            await here(handler, rebuilt)
    except DirectoryInUse:
        async with _client(layout) as client:
            await there(client)
    return 0


@contextlib.asynccontextmanager
async def _client(layout: Layout) -> AsyncIterator[Connection]:
    """A client of the server that has the directory, as its owner."""
    holder = holder_of(layout)
    if holder is None:
        raise RequestRefused("The server is about to start", f"{layout.root}: try again in a moment.")
    key = await asyncio.to_thread(_owner_key, layout.owner_key)
    async with Connection(holder.url, token=key, certificate_sha256=holder.certificate_sha256) as client:
        yield client


@contextlib.asynccontextmanager
async def _writer(layout: Layout) -> AsyncIterator[tuple[CommandHandler, Rebuilt]]:
    """The one writer of a log that no server has."""
    with claimed(layout):
        log = await EventLog.open(layout.log)
        try:
            await asyncio.to_thread(SnapshotFile(layout.snapshot).recover)
            rebuilt = await log.read(partial(rebuild, snapshot=layout.snapshot))
            machine = Machine(slots=1, gpus=(), cpu_threads=1)  # no job is decided here
            handler = CommandHandler(log, rebuilt.state, rebuilt.digest, lambda _: None, machine)
            writing = asyncio.get_running_loop().create_task(handler.run())
            try:
                yield handler, rebuilt
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        finally:
            await log.close()


def _owner_key(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise RequestRefused(
            "Only the owner of the data directory makes tokens here", f"{path}: {error.strerror}."
        ) from error


def _moment(expires: str | None) -> str | None:
    """When a token expires, by a length (90m, 12h, 30d, 4w) or a moment.

    Raises:
        BadInput: it is neither.
    """
    if expires is None:
        return None
    if (length := _LENGTH.fullmatch(expires)) is not None:
        return (datetime.now(UTC) + timedelta(**{_UNITS[length[2]]: int(length[1])})).isoformat()
    try:
        moment = datetime.fromisoformat(expires)
    except ValueError as error:
        raise BadInput("--expires cannot be used", f"{expires!r}: write 30d, 12h, or 2027-01-31T12:00:00Z.") from error
    return (moment if moment.tzinfo is not None else moment.astimezone()).isoformat()


def _show(name: str, scope: str, token: str) -> None:
    """The token alone on stdout, for programs; what it is, for people, on stderr."""
    sys.stderr.write(f"The token {name}, of scope {scope}; it is not shown again. From now on everybody needs one:\n")
    sys.stderr.flush()
    say(f"{token}")


def _say_revoked(name: str, left: int) -> None:
    say(f"{name} is revoked; what it had open is ended.")
    if not left:
        say("No token is left: on this machine nobody is asked for one, unless `serve --require-token`.")


def _list(tokens: list[TokenDetails]) -> None:
    if not tokens:
        say("There is no token; `modelforge token create` makes one.")
        return
    table = Table(
        *(Column(name, overflow="fold") for name in ("name", "scope", "made (UTC)", "expires (UTC)")), box=None
    )
    table.pad_edge = False
    for token in tokens:
        table.add_row(visible(token.name), token.scope, moment(token.created_at), moment(token.expires_at) or "never")
    Screen().print(table)
