"""The composition root: what there is, in the order in which it starts, and how the server ends."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import msgspec
from aiohttp import web
from msgspec import Struct

from modelforge.admission.context import FETCHES_AT_ONCE, Admission
from modelforge.command_handler import CommandHandler
from modelforge.datasets.preview_workers import PreviewWorkers
from modelforge.datasets.store import DatasetStore
from modelforge.domain.messages import Record
from modelforge.domain.state import State
from modelforge.errors import DirectoryInUse, LogUnusable, SettingsInvalid
from modelforge.event_log.sqlite import EventLog
from modelforge.http.openapi import document
from modelforge.http.playground import GIVEN_ANSWERS, GivenAnswers
from modelforge.http.plumbing import problems
from modelforge.http.plumbing.guard import Guard
from modelforge.http.plumbing.keys import (
    ADMISSION,
    DATASET_STORE,
    EVENT_LOG,
    HANDLER,
    LAYOUT,
    OPENAPI,
    PLAYGROUND,
    PREVIEW_WORKERS,
    PROJECTOR,
    SETTINGS,
    SUBSCRIBERS,
)
from modelforge.http.plumbing.protocol import JsonRunner
from modelforge.http.plumbing.subscribers import Subscribers
from modelforge.http.routes import add_routes
from modelforge.http.upload_progress import WATCHERS, Watchers
from modelforge.inference import InferenceWorker
from modelforge.layout import Layout
from modelforge.machine.devices import machine_of
from modelforge.projections.projector import Projector
from modelforge.projections.snapshots import SnapshotWriter, rebuild
from modelforge.settings import Settings
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.local import LocalLauncher
from modelforge.supervisor.reactor import Reactor
from modelforge.supervisor.trash import empty, remove
from modelforge.version import VERSION

_GOODBYE_SECONDS = 5.0

FAILED = web.AppKey("failed", asyncio.Future[None])
"""Done with an exception when the server cannot go on."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who has a data directory: what `lock` says."""

    pid: int
    url: str


def make_app(settings: Settings, launcher: Launcher | None = None) -> web.Application:
    """The application; `launcher` runs the attempts, by default as processes of this machine."""
    layout = Layout(settings.data_dir)
    guard = Guard(settings.host, settings.allowed_hosts)
    app = web.Application(client_max_size=settings.max_body_bytes, middlewares=[_answering(guard)])
    app[SETTINGS], app[LAYOUT] = settings, layout
    app[OPENAPI] = document()
    app[GIVEN_ANSWERS], app[WATCHERS], app[PREVIEW_WORKERS] = GivenAnswers(), Watchers(), PreviewWorkers()
    add_routes(app)
    chosen = launcher or LocalLauncher(layout)

    async def directory(_app: web.Application) -> AsyncIterator[None]:
        with _claimed(layout):
            await asyncio.to_thread(_sweep, layout)
            yield

    async def log(app: web.Application) -> AsyncIterator[None]:
        app[EVENT_LOG] = await EventLog.open(layout.log)
        yield
        await app[EVENT_LOG].close()

    async def writer(app: web.Application) -> AsyncIterator[None]:
        async with _writing(app, chosen):
            yield

    async def listeners(app: web.Application) -> AsyncIterator[None]:
        app[SUBSCRIBERS] = Subscribers(app[EVENT_LOG], app[PROJECTOR])
        app[PLAYGROUND] = InferenceWorker(settings.playground_idle_seconds, settings.data_dir / "playground.log")
        yield
        await app[PLAYGROUND].close()

    async def say_goodbye(app: web.Application) -> None:
        await asyncio.gather(app[SUBSCRIBERS].close(), app[WATCHERS].close())

    app.cleanup_ctx.extend((directory, log, writer, listeners))
    app.on_shutdown.append(say_goodbye)
    return app


def _answering(guard: Guard) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The one middleware: who may ask, and errors as answers."""

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            guard.check(request)
            return await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - everything becomes an answer, and what nobody foresaw is logged
            gone = isinstance(error, ConnectionError) and request.transport is None  # the client; nobody reads this
            problem = problems.CUT_OFF if gone else problems.problem_of(error)
            response = problems.response(problem)
            if isinstance(error, web.HTTPMethodNotAllowed):
                response.headers["Allow"] = error.headers["Allow"]
            return response

    return middleware


@contextlib.contextmanager
def _claimed(layout: Layout) -> Iterator[None]:
    """Hold the directory's lock for as long as this process lives; no child inherits it.

    Raises:
        DirectoryInUse: another server has it; the message says which.
        SettingsInvalid: it cannot be made, or not be written.
    """
    try:
        layout.make_folders()
        file = layout.lock.open("a+")
    except OSError as error:
        raise SettingsInvalid("The data directory cannot be used", f"{layout.root}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUse(
                "Another server has this data directory",
                f"{layout.root} is served by {_holder(layout)}; stop it, or use another --data-dir.",
            ) from error
        yield
        file.truncate(0)


def _holder(layout: Layout) -> str:
    try:
        holder = msgspec.json.decode(layout.lock.read_bytes(), type=Holder)
    except msgspec.DecodeError:
        return "a server that has not said its name yet"
    return f"process {holder.pid} at {holder.url}"


def _sweep(layout: Layout) -> None:
    """Take away what a crash left half done."""
    empty(layout.temporary)
    empty(layout.trash)


def _sweep_datasets(layout: Layout, state: State) -> None:
    """Take away the content of uploads that were never recorded: they were never answered either."""
    known = state.known_files()
    for leftover in (*layout.datasets.glob("*.jsonl"), *layout.datasets.glob("*.upload")):
        if leftover.name not in known:
            remove(leftover)


@contextlib.asynccontextmanager
async def _writing(app: web.Application, launcher: Launcher) -> AsyncIterator[None]:
    """Everything that follows the log: state, read models, snapshots, the reactor, and the writer itself."""
    log, layout, settings = app[EVENT_LOG], app[LAYOUT], app[SETTINGS]
    rebuilt = await log.read(rebuild)
    await asyncio.to_thread(_sweep_datasets, layout, rebuilt.state)

    def on_append(records: Sequence[Record]) -> None:
        projector.take(records)
        reactor.take(records)
        snapshots.follow(records[-1].position, reactor.report_failure)

    machine = machine_of(settings)
    handler = CommandHandler(log, rebuilt.state, rebuilt.digest, on_append, machine)
    projector = Projector(rebuilt.read_models)
    snapshots = SnapshotWriter(log, handler, rebuilt.read_models)
    store = DatasetStore(layout, handler)
    reactor = Reactor(handler, launcher, layout, store, machine, settings.stalled_seconds)
    app[HANDLER], app[PROJECTOR], app[DATASET_STORE], app[FAILED] = handler, projector, store, reactor.failed
    app[ADMISSION] = Admission(
        settings=settings,
        layout=layout,
        read_models=rebuilt.read_models,
        handler=handler,
        fetches=asyncio.Semaphore(FETCHES_AT_ONCE),
    )
    writer = asyncio.get_running_loop().create_task(handler.run())
    writer.add_done_callback(reactor.report_failure)
    reactor.start()
    try:
        yield
    finally:
        await reactor.close()
        if not writer.done():
            with contextlib.suppress(LogUnusable):  # this server ends in any case
                await snapshots.write()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await snapshots.close()


async def serve(settings: Settings, launcher: Launcher | None = None) -> None:
    """Serve until SIGTERM or SIGINT; trainers that run go on, and the next server takes them up.

    Raises:
        ForgeError: the server could not start, or not go on.
    """
    os.umask(0o077)  # what lies in the data directory is for its owner only
    app = make_app(settings, launcher)
    runner = JsonRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=_GOODBYE_SECONDS)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        await runner.setup()
        site = web.TCPSite(runner, settings.host, settings.port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise SettingsInvalid(
                "The address cannot be used", f"{settings.host}:{settings.port}: {error.strerror}; try another --port."
            ) from error
        url = _url(settings.host, runner.addresses[0][1])
        app[LAYOUT].lock.write_bytes(msgspec.json.encode(Holder(pid=os.getpid(), url=url)))
        sys.stdout.write(f"ModelForge {VERSION} listens on {url}  (data: {settings.data_dir})\n")
        sys.stdout.flush()
        app[FAILED].add_done_callback(lambda _: ended.set())
        await ended.wait()
        if app[FAILED].done():
            app[FAILED].result()
    finally:
        await runner.cleanup()


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
