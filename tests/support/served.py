"""`python -m support.served DATA_DIR`: the real server in a process of its own, with scripted trainers."""

import argparse
import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

from modelforge import app
from modelforge.datasets import preview_workers
from modelforge.event_log import log_schema, sqlite
from modelforge.event_log.sqlite import LogReader
from modelforge.layout import Layout
from modelforge.machine.hub_secrets import server_redaction
from modelforge.projections import snapshots
from modelforge.projections.folding import FoldStopped, FoldWatch, Rebuilt
from modelforge.projections.snapshot_file import Head, SnapshotFile
from modelforge.server import serve
from modelforge.server_log import configure_log
from modelforge.settings import Settings, load_settings
from modelforge.supervisor import following, standby, waiting_trainer
from modelforge.supervisor.divided import DividedLauncher
from modelforge.supervisor.file_changes import FileChanges
from modelforge.supervisor.launcher import Launcher
from modelforge.supervisor.local import LocalLauncher, accelerate_command
from modelforge.supervisor.slurm.start import on_cluster
from modelforge.supervisor.standby import Standby
from support.followed import let_be_followed
from support.scripted_command import command
from support.scripted_inference import ScriptedInference
from support.waiting_launcher import WaitingLauncher
from trainer_entry import wire

_TRAINER = "support.scripted_trainer"
POOL_THREAD = "pool"
"""The name under which /proc has the one thread of `--one-thread`."""


def scripted(data_dir: Path, *, accelerate: bool = False, ahead: Standby | None = None) -> LocalLauncher:
    launch = accelerate_command if accelerate else command
    return LocalLauncher(Layout(data_dir), module=_TRAINER, command=launch, standby=ahead)


def launcher_of(options: argparse.Namespace, ahead: Standby | None) -> Launcher:
    """Scripted trainers on this machine, or where they wait as on a cluster."""
    local = scripted(options.data_dir, accelerate=options.accelerate, ahead=ahead)
    if options.cluster is None:
        return local
    return DividedLauncher(
        WaitingLauncher(scripted(options.data_dir), options.cluster), local, Layout(options.data_dir)
    )


def standby_of(data_dir: Path) -> Standby:
    """One that waits for nothing."""
    standby._QUIET_SECONDS, standby._IMPORT_SECONDS = 0.0, 2.0  # noqa: SLF001 - tests wait
    waiting_trainer._ANSWER_SECONDS = 1.0  # noqa: SLF001
    return Standby(Layout(data_dir), lambda _: [sys.executable, "-m", _TRAINER, wire.STANDBY], _TRAINER)


def name_thread() -> None:
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(POOL_THREAD)


async def run(settings: Settings, options: argparse.Namespace) -> None:
    if options.one_thread:
        let_be_followed()
        loop = asyncio.get_running_loop()
        pool = ThreadPoolExecutor(1, initializer=name_thread)
        loop.set_default_executor(pool)
        await loop.run_in_executor(None, threading.get_native_id)
    if options.stopped:
        os.kill(os.getpid(), signal.SIGSTOP)
    ahead = standby_of(options.data_dir) if options.standby else None
    launcher = launcher_of(options, ahead) if settings.launcher == "local" else None  # else as the settings say
    await serve(settings, launcher, ahead)


def hold_reading(until: Path) -> None:
    """Have the server take as long to read its log as a test needs."""

    def held(reader: LogReader, snapshot: Path, *, watch: FoldWatch) -> Rebuilt:
        watch.begin(41, 1_000_041)
        while not until.exists():
            if watch.is_ended.wait(0.02):
                raise FoldStopped
        return snapshots.rebuild(reader, snapshot)

    app.rebuild = held  # type: ignore[assignment, attr-defined]


def hold_upgrade(until: Path) -> None:
    """Have the server take as long to bring its log to this release's schema as a test needs."""
    opened = sqlite.EventLog.open

    async def held(path: Path, on_upgrade: Callable[[int], None], is_given_up: Callable[[], bool]) -> sqlite.EventLog:
        def asked() -> bool:
            while not until.exists():
                if is_given_up():
                    return True
                time.sleep(0.02)
            return False

        return await opened(path, lambda records: on_upgrade(records + 1_000_000), asked)

    log_schema._ASKED_EVERY = 1  # noqa: SLF001 - the log is a small one
    sqlite.EventLog.open = held  # type: ignore[assignment, method-assign]


def hold_snapshot(told: Path) -> None:
    """Write a snapshot after each record, and have every page of it in the file, but never the end."""

    class HalfWritten(SnapshotFile):
        def begin(self, *, anew: bool) -> None:
            super().begin(anew=anew)
            self._begun().execute("PRAGMA cache_size = 1")

        def seal(self, head: Head) -> None:  # noqa: ARG002 - it is as the file's own
            told.touch()
            time.sleep(60)

    snapshots.SNAPSHOT_EVERY = 1
    setattr(snapshots, SnapshotFile.__name__, HalfWritten)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--accelerate", action="store_true", help="trainers under the real accelerate launch")
    parser.add_argument("--standby", action="store_true", help="a trainer is started ahead")
    parser.add_argument("--cluster", type=Path, help="trainings wait as support.waiting_launcher says, in this folder")
    parser.add_argument("--one-thread", action="store_true", help="every thread call in one thread, named in /proc")
    parser.add_argument("--port", type=int, default=0, help="of an earlier server, whose clients come back")
    parser.add_argument("--stopped", action="store_true", help="stop (SIGSTOP) once loaded, before anything is done")
    parser.add_argument("--read-seconds", type=float, help="time between two looks at a spool, of which nobody tells")
    parser.add_argument("--look-seconds", type=float, help="time between two looks at one of which the kernel tells")
    parser.add_argument("--stalled-seconds", type=float, default=2)
    parser.add_argument("--scripted-answers", action="store_true", help="a playground that answers as it is told")
    parser.add_argument("--view-seconds", type=float, help="how long a look at a dataset may take")
    parser.add_argument("--held", type=Path, help="read the log only once this file is there")
    parser.add_argument("--held-upgrade", type=Path, help="upgrade the log only once this file is there")
    parser.add_argument("--half-written", type=Path, help="make this file once a snapshot is half written, and hang")
    options = parser.parse_args()
    if options.held is not None:
        hold_reading(options.held)
    if options.held_upgrade is not None:
        hold_upgrade(options.held_upgrade)
    if options.half_written is not None:
        hold_snapshot(options.half_written)
    if options.read_seconds is not None:
        following._READ_SECONDS = options.read_seconds  # noqa: SLF001 - the torture counts calls, and looks are calls
        FileChanges.add = lambda *_: None  # type: ignore[method-assign]
    if options.look_seconds is not None:
        following._LOOK_SECONDS = options.look_seconds  # noqa: SLF001 - a test sees whether it is told
    if options.view_seconds is not None:
        preview_workers._SECONDS = options.view_seconds  # noqa: SLF001 - a test waits for its end
    # Where the settings name a cluster, its trainers are scripted too.
    app.on_cluster = functools.partial(on_cluster, module=_TRAINER, command=command, look_seconds=0.3)  # type: ignore[attr-defined]
    if options.scripted_answers:
        app.InferenceWorker = ScriptedInference  # type: ignore[assignment, attr-defined]
    roots = [str(options.data_dir.parent), str(options.data_dir.parent.parent)]
    flags = {"data_dir": options.data_dir, "port": options.port, "dataset_roots": roots, "model_roots": roots}
    flags |= {"stop_grace_seconds": 5, "stalled_seconds": options.stalled_seconds}
    variables = {name: value for name, value in os.environ.items() if name.startswith("MODELFORGE_")}
    settings = load_settings(flags, environ=variables, folder=options.data_dir.parent)
    configure_log(server_redaction(), settings.log_format)
    uvloop.run(run(settings, options))


if __name__ == "__main__":
    main()
