"""The composition root: what there is, in the order in which it starts."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from functools import partial

from aiohttp import web

from modelforge.admission.ahead import check_ahead
from modelforge.admission.context import FETCHES_AT_ONCE, Admission
from modelforge.admission.estimate.fit import host_bytes
from modelforge.command_handler import CommandHandler
from modelforge.data_directory import claimed, kept_secret
from modelforge.datasets.preview_workers import PreviewWorkers
from modelforge.datasets.record_pages import RecordPages
from modelforge.datasets.store import DatasetStore
from modelforge.domain.messages import Record
from modelforge.domain.scheduling import server_of
from modelforge.domain.state import State
from modelforge.end_command import EndCommand
from modelforge.event_log.sqlite import EventLog
from modelforge.http.generation import GIVEN_ANSWERS, GivenAnswers
from modelforge.http.openai.webhook_events import event_of
from modelforge.http.openapi import document
from modelforge.http.plumbing.exposition import Exposition
from modelforge.http.plumbing.gate import GATE, Gate
from modelforge.http.plumbing.identities import Identities
from modelforge.http.plumbing.keys import (
    ADMISSION,
    DATASET_STORE,
    DELIVERER,
    EVENT_LOG,
    EXPOSITION,
    HANDLER,
    IDENTITIES,
    LAYOUT,
    OPENAPI,
    PLAYGROUND,
    PREVIEW_WORKERS,
    PROJECTOR,
    RECORD_PAGES,
    SETTINGS,
    SUBSCRIBERS,
)
from modelforge.http.plumbing.request_ids import name_answer
from modelforge.http.plumbing.security_headers import secure_answer
from modelforge.http.plumbing.subscribers import Subscribers
from modelforge.http.routes import ROUTES, add_routes
from modelforge.http.upload_progress import WATCHERS, Watchers
from modelforge.inference import InferenceWorker
from modelforge.layout import Layout
from modelforge.machine.cluster import Partitions
from modelforge.machine.devices import machine_of
from modelforge.machine.hub_secrets import server_redaction
from modelforge.machine.isolation import isolation_of
from modelforge.projections.folding import FoldWatch
from modelforge.projections.indexes import Indexes
from modelforge.projections.projector import Projector
from modelforge.projections.snapshot_file import SnapshotFile
from modelforge.projections.snapshots import Snapshots, rebuild
from modelforge.settings import Settings
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.local import LocalLauncher, standby_command
from modelforge.supervisor.reactor import Reactor
from modelforge.supervisor.slurm.start import on_cluster, prepare
from modelforge.supervisor.standby import Standby
from modelforge.supervisor.trash import empty, remove
from modelforge.webhooks.deliverer import Deliverer
from modelforge.webhooks.secrets import SecretFiles
from trainer_entry import wire
from trainer_entry.wire.redaction import Redaction

FAILED = web.AppKey("failed", asyncio.Future[None])
"""Done with an exception when the server cannot go on."""
FOLD_WATCH = web.AppKey("fold_watch", FoldWatch)


def make_app(
    settings: Settings,
    launcher: Launcher | None = None,
    standby: Standby | None = None,
    watch: FoldWatch | None = None,
) -> web.Application:
    """The application; `launcher` runs the attempts, by default as processes of this machine, and has `standby`.

    `watch` follows how its log is read when it starts.
    """
    layout = Layout(settings.data_dir, settings.shared_root)
    isolation = isolation_of(settings)
    identities = Identities(required=settings.require_token or settings.is_reached_by_others)
    redact = server_redaction()
    gate = Gate(settings, ROUTES, identities, redact)
    app = web.Application(client_max_size=settings.max_body_bytes, middlewares=[gate.middleware()])
    app[GATE] = gate
    app.on_response_prepare.extend((secure_answer, name_answer, gate.origins.mark_answer))
    app[SETTINGS], app[LAYOUT], app[IDENTITIES] = settings, layout, identities
    app[OPENAPI], app[FOLD_WATCH] = document(), watch or FoldWatch()
    app[GIVEN_ANSWERS], app[WATCHERS], app[PREVIEW_WORKERS] = GivenAnswers(), Watchers(), PreviewWorkers(isolation)
    app[RECORD_PAGES] = RecordPages()
    add_routes(app)
    # What one may see that is set apart, its job says: it cannot be started before that.
    keeps_one = launcher is None and isolation is None and not settings.cold and settings.launcher == "local"
    ahead = standby or Standby(
        layout,
        standby_command,
        warmed=partial(_prepare_playground, app),
        meanwhile=partial(_check_ahead, app),
        keeps_one=keeps_one,
        needs=partial(host_bytes, data_dir=layout.root),
    )
    local = LocalLauncher(layout, isolation=isolation, standby=None if settings.launcher == "slurm" else ahead)
    cluster = on_cluster(settings, layout, local) if settings.launcher == "slurm" else None
    chosen = launcher or (local if cluster is None else cluster.launcher)

    async def directory(_app: web.Application) -> AsyncIterator[None]:
        with claimed(layout), kept_secret(layout.owner_key, identities.owner_key):
            if cluster is not None:
                await prepare(settings, layout, cluster.slurm)
            await asyncio.to_thread(_sweep, layout)
            yield

    async def log(app: web.Application) -> AsyncIterator[None]:
        follows = app[FOLD_WATCH]
        upgrades = partial(follows.begin, 0, stage="upgrading")
        app[EVENT_LOG] = await EventLog.open(layout.log, upgrades, follows.is_ended.is_set)
        yield
        await app[EVENT_LOG].close()

    async def writer(app: web.Application) -> AsyncIterator[None]:
        partitions = None if cluster is None else cluster.partitions
        async with _writing(app, chosen, ahead, gate, redact, partitions):
            yield

    async def listeners(app: web.Application) -> AsyncIterator[None]:
        app[SUBSCRIBERS] = Subscribers(app[EVENT_LOG], app[PROJECTOR], settings.still_seconds)
        app[PLAYGROUND] = InferenceWorker(
            settings.playground_idle_seconds,
            settings.data_dir / "playground.log",
            isolation,
            keeps_one=not settings.cold,
        )
        yield
        await app[PLAYGROUND].shut()

    async def say_goodbye(app: web.Application) -> None:
        await asyncio.gather(app[SUBSCRIBERS].close(), app[WATCHERS].close())

    app.cleanup_ctx.extend((directory, log, writer, listeners))
    app.on_shutdown.append(say_goodbye)
    return app


def _prepare_playground(app: web.Application) -> None:
    """Where there is a model to ask, have a worker started ahead."""
    if PLAYGROUND in app and app[PROJECTOR].read_models.models:
        app[PLAYGROUND].prepare()


async def _check_ahead(app: web.Application) -> None:
    """Look at the models that are likely asked for next: the last one, and the one that comes with this."""
    models, status = {wire.BUILT_IN_MODEL}, app[PROJECTOR].read_models.status()
    if status.job_id is not None:
        models.add(app[HANDLER].state.jobs[status.job_id].spec.model_path)
    await check_ahead(models)


def _sweep(layout: Layout) -> None:
    """Take away what a crash left half done."""
    empty(layout.temporary)
    empty(layout.trash)
    shutil.rmtree(layout.standby, ignore_errors=True)  # one that still ends itself may be at the same


def _sweep_datasets(layout: Layout, state: State) -> None:
    """Take away the content of uploads that were never recorded: they were never answered either."""
    known = state.known_files()
    for leftover in (*layout.datasets.glob("*.jsonl"), *layout.datasets.glob("*.upload")):
        if leftover.name not in known:
            remove(leftover)


@contextlib.asynccontextmanager
async def _writing(
    app: web.Application,
    launcher: Launcher,
    ahead: Standby,
    gate: Gate,
    redact: Redaction,
    partitions: Partitions | None,
) -> AsyncIterator[None]:
    """Everything that follows the log: state, read models, snapshots, the reactor, and the writer itself."""
    log, layout, settings = app[EVENT_LOG], app[LAYOUT], app[SETTINGS]
    await asyncio.to_thread(SnapshotFile(layout.snapshot).recover)
    rebuilt = await log.read(partial(rebuild, snapshot=layout.snapshot, watch=app[FOLD_WATCH]))
    await asyncio.to_thread(_sweep_datasets, layout, rebuilt.state)
    projector = Projector(await asyncio.to_thread(Indexes, rebuilt.read_models))

    def on_append(records: Sequence[Record]) -> None:
        projector.take(records)
        reactor.take(records)
        gate.take(records)
        deliverer.take(records)
        end_command.take(records)
        exposition.take(records)
        snapshots.follow(records[-1].position, handler.digest, reactor.report_failure)
        ahead.follow(handler.state)

    async def clear_gpu() -> None:
        if PLAYGROUND in app:  # it is made after what follows the log, and takes the first GPU that it sees
            await app[PLAYGROUND].give_way()

    place = launcher.place(machine_of(settings))
    handler = CommandHandler(log, rebuilt.state, rebuilt.digest, on_append, place, redact)
    snapshots = Snapshots(layout.snapshot, rebuilt)
    store = DatasetStore(layout, handler)
    reactor = Reactor(handler, launcher, layout, store, place, settings.stalled_seconds, clear_gpu)
    event = partial(event_of, state=rebuilt.state, read_models=rebuilt.read_models)
    secrets = SecretFiles(layout.webhooks)
    deliverer = Deliverer(handler, log, rebuilt.read_models, secrets, event, reactor.report_failure)
    end_command = EndCommand(settings.on_end, rebuilt.state)
    exposition = Exposition(rebuilt.state, projector, layout, len(server_of(place).gpus))
    app[DELIVERER], app[EXPOSITION] = deliverer, exposition
    app[HANDLER], app[PROJECTOR], app[DATASET_STORE], app[FAILED] = handler, projector, store, reactor.failed
    app[IDENTITIES].tokens = rebuilt.read_models.tokens
    app[ADMISSION] = Admission(
        settings=settings,
        layout=layout,
        indexes=projector.indexes,
        handler=handler,
        fetches=asyncio.Semaphore(FETCHES_AT_ONCE),
        workers=app[PREVIEW_WORKERS],
        spare_bytes=ahead.spare_bytes,
        partitions=partitions,
    )
    writer = asyncio.get_running_loop().create_task(handler.run())
    writer.add_done_callback(reactor.report_failure)
    expiries = asyncio.get_running_loop().create_task(gate.watch())
    expiries.add_done_callback(reactor.report_failure)
    deliverer.start()
    reactor.start()
    snapshots.follow(rebuilt.state.position, rebuilt.digest, reactor.report_failure)
    ahead.open(server_of(place), handler.state)
    try:
        yield
    finally:
        expiries.cancel()
        writer.cancel()
        await asyncio.gather(writer, expiries, return_exceptions=True)  # what was submitted is written before
        await asyncio.gather(reactor.close(), deliverer.close(), end_command.close(), ahead.close())
        await snapshots.close(handler.digest if writer.cancelled() else None)
