"""`modelforge token`: made, listed and revoked by whoever owns the data directory, with a server or without one."""

import argparse
import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from modelforge.cli.screen import say
from modelforge.client import Client, RequestRefused
from modelforge.command_handler import CommandHandler
from modelforge.data_directory import claimed, holder_of
from modelforge.domain import access_token
from modelforge.domain.scheduling import Machine
from modelforge.errors import BadInput, DirectoryInUse
from modelforge.event_log.sqlite import EventLog
from modelforge.http.plumbing.identities import new_token
from modelforge.http.sessions import LoginLink
from modelforge.http.tokens import MadeToken, NewToken, TokenList, TokenRevoked, create_command
from modelforge.layout import Layout
from modelforge.projections.snapshots import Rebuilt, rebuild
from modelforge.projections.tokens import TokenDetails

_OWNER = "api:owner"
_LENGTH = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


async def run(options: argparse.Namespace, layout: Layout) -> int:
    """Run one of the commands."""
    try:
        await _run_offline(options, layout)
    except DirectoryInUse:  # then its server does it
        await _run_online(options, layout)
    return 0


async def _run_offline(options: argparse.Namespace, layout: Layout) -> None:
    if options.kind == "link":
        with claimed(layout):
            raise _no_server(layout)
    async with _writer(layout) as (handler, rebuilt):
        match options.kind:
            case "create":
                token = new_token()
                asked = NewToken(name=options.name, scope=options.scope, expires_at=_moment(options.expires))
                await handler.submit(create_command(asked, token), actor=_OWNER)
                _show(asked.name, asked.scope, token)
            case "revoke":
                await handler.submit(access_token.RevokeToken(name=_revoked(options)), actor=_OWNER)
                left = [name for name in rebuilt.read_models.tokens if name != _revoked(options)]
                _say_revoked(_revoked(options), len(left))
            case _:
                _list([token.details for token in rebuilt.read_models.tokens.values()])


async def _run_online(options: argparse.Namespace, layout: Layout) -> None:
    holder = holder_of(layout)
    if holder is None:
        raise RequestRefused("The server is about to start", f"{layout.root}: try again in a moment.")
    key = await asyncio.to_thread(_owner_key, layout.owner_key)
    async with Client(holder.url, token=key, certificate_sha256=holder.certificate_sha256) as client:
        match options.kind:
            case "create":
                asked = NewToken(name=options.name, scope=options.scope, expires_at=_moment(options.expires))
                made = await client.post("/api/tokens", asked, MadeToken)
                _show(made.name, made.scope, made.token)
            case "revoke":
                await client.delete(f"/api/tokens/{quote(_revoked(options), safe='')}", TokenRevoked)
                _say_revoked(_revoked(options), len((await client.get("/api/tokens", TokenList)).tokens))
            case "link":
                link = await client.post("/api/login_links", {}, LoginLink)
                say(f"{holder.url}{link.path}")
            case _:
                _list((await client.get("/api/tokens", TokenList)).tokens)


def _revoked(options: argparse.Namespace) -> str:
    return str(options.revoked or options.name)


@contextlib.asynccontextmanager
async def _writer(layout: Layout) -> AsyncIterator[tuple[CommandHandler, Rebuilt]]:
    """The one writer of a log that no server has."""
    with claimed(layout):
        log = await EventLog.open(layout.log)
        try:
            rebuilt = await log.read(rebuild)
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


def _no_server(layout: Layout) -> RequestRefused:
    return RequestRefused("No server runs", f"{layout.root} is served by none; `modelforge serve` prints a link.")


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
    for token in tokens:
        until = "never expires" if token.expires_at is None else f"expires {token.expires_at}"
        say(f"{token.name}  {token.scope}  made {token.created_at}  {until}")
    if not tokens:
        say("There is no token.")
