"""The server's life: it listens, reads its log, serves, and ends at a signal or at a failure."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine

from aiohttp import web

from modelforge.app import FAILED, make_app
from modelforge.data_directory import Holder, tell_holder
from modelforge.errors import SettingsInvalid
from modelforge.http.plumbing.identities import OWNER_IDENTITY
from modelforge.http.plumbing.keys import IDENTITIES, LAYOUT
from modelforge.http.plumbing.listening import allow_open_files, check_address, listen
from modelforge.http.plumbing.protocol import JsonRunner
from modelforge.http.sessions import login_path
from modelforge.http.starting import starting_app, work_before
from modelforge.projections.folding import FoldWatch
from modelforge.settings import Settings
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.standby import Standby
from modelforge.version import VERSION

_GOODBYE_SECONDS = 5.0

_SOON = 20_000
"""Records that are read so soon that nobody needs to be told meanwhile."""


async def serve(settings: Settings, launcher: Launcher | None = None, standby: Standby | None = None) -> None:
    """Serve until SIGTERM or SIGINT; trainers that run go on, and the next server takes them up.

    Where there is much of the log to be upgraded or read first, it listens before that, and says how far it is.

    Raises:
        ForgeError: the server could not start, or not go on.
    """
    os.umask(0o077)  # what lies in the data directory is for its owner only
    if not settings.data_dir.exists():  # where one is, whoever has it is what is to be said first
        check_address(settings)
    allow_open_files(settings.max_connections)
    loop, ended, reads_long = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)

    def on_begin(records: int) -> None:
        if records > _SOON:
            loop.call_soon_threadsafe(reads_long.set)

    watch = FoldWatch(on_begin)
    app = make_app(settings, launcher, standby, watch)
    runner = JsonRunner(app, settings, shutdown_timeout=_GOODBYE_SECONDS)
    early = JsonRunner(starting_app(watch, settings), settings, shutdown_timeout=_GOODBYE_SECONDS)
    async with _cleaned_up(runner), _cleaned_up(early), _in_background(runner.setup(), watch) as starts:
        await _first(starts, reads_long, ended)
        if not starts.done() and not ended.is_set():
            await early.setup()
            url = await _listen(early, app, settings)
            sys.stdout.write(f"{work_before(watch)}\n")
            sys.stdout.flush()
            await _first(starts, ended)
        if not starts.done():
            return
        await starts
        _check_token(app, settings)
        if early.server is None:
            url = await _listen(runner, app, settings)
        else:
            await early.give_way(runner)
        if app[IDENTITIES].are_required:
            link = f"{url}{login_path(app[IDENTITIES].make_code(OWNER_IDENTITY))}"
            sys.stdout.write(f"To sign a browser in, once: {link}\n")
        sys.stdout.flush()
        app[FAILED].add_done_callback(lambda _: ended.set())
        await ended.wait()
        if app[FAILED].done():
            app[FAILED].result()


@contextlib.asynccontextmanager
async def _in_background(setup: Coroutine[None, None, None], watch: FoldWatch) -> AsyncIterator[asyncio.Task[None]]:
    """The start of the application, which is given up where it is not done at the end."""
    starts = asyncio.get_running_loop().create_task(setup)
    try:
        yield starts
    finally:
        watch.is_ended.set()
        await asyncio.gather(starts, return_exceptions=True)  # the reading ends within a thousand records


@contextlib.asynccontextmanager
async def _cleaned_up(runner: JsonRunner) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await runner.cleanup()


async def _first(starts: asyncio.Task[None], *events: asyncio.Event) -> None:
    """Wait until the start is done or one of the events is there."""
    waits = [asyncio.get_running_loop().create_task(event.wait()) for event in events]
    try:
        await asyncio.wait({starts, *waits}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _listen(runner: JsonRunner, app: web.Application, settings: Settings) -> str:
    """Begin to listen, and say where, to the directory and on stdout."""
    listener = await listen(runner, settings)
    holder = Holder(pid=os.getpid(), url=listener.url, certificate_sha256=listener.certificate_sha256)
    tell_holder(app[LAYOUT], holder)
    sys.stdout.write(f"ModelForge {VERSION} listens on {listener.url}  (data: {settings.data_dir})\n")
    sys.stdout.flush()
    return listener.url


def _check_token(app: web.Application, settings: Settings) -> None:
    """Refuse to serve others without a token.

    Raises:
        SettingsInvalid: there is none.
    """
    if settings.is_reached_by_others and not app[IDENTITIES].has_usable_token():
        how = "--behind-proxy" if settings.behind_proxy else f"--host {settings.host}"
        raise SettingsInvalid(
            "No token exists, and others can reach the server",
            f"{how}: make one first, with `modelforge token create --name NAME --scope admin "
            f"--data-dir {settings.data_dir}`.",
        )
