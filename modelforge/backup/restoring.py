"""Puts a backup back: its names, hashes and records are checked before, and what was written is checked again."""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from modelforge import audit
from modelforge.backup.files import begun, copy, make_folders, opened_inside, sync_folders, told
from modelforge.backup.manifest import LOG, RESTORED_NAMES, SNAPSHOT, Manifest, check_files, data_of, read_manifest
from modelforge.errors import BackupUnusable, DirectoryInUse
from modelforge.event_log.log_schema import log_schema
from modelforge.event_log.view import log_view
from modelforge.layout import Layout
from modelforge.owner_files import sync_folder
from modelforge.projections.folding import Rebuilt
from modelforge.projections.snapshot_file import TABLES
from modelforge.projections.snapshots import rebuild
from modelforge.supervisor.local_attempts import Attempt, processes_of

_OF_THE_DISK = "lost+found"
"""What an empty disk has in it; a try that was killed may have left a lock and its partial folder beside it."""


def restore_backup(backup: Path, layout: Layout) -> Manifest:
    """Put a backup where there is no data directory yet: it is there whole, or not at all.

    Raises:
        BackupUnusable, LogUnusable: the backup is not what was written, or cannot be put there.
        DirectoryInUse, StorageFull: it cannot be put there now.
    """
    data, root = data_of(backup), layout.root
    with told("The backup cannot be put back"):
        manifest = read_manifest(backup)
        _refuse_place(layout)
        check_files(data, manifest.files)
        rebuilt = _checked_log(data, manifest)
        _refuse_other_path(rebuilt, manifest, root)
        _refuse_living(rebuilt, data)
        make_folders(root.parent)
        inside = root.is_mount()  # then nothing can be put in its place, only into it
        staged = (root if inside else root.parent) / f".{root.name}.restore-partial"
        with _kept_from_servers(layout) if inside else contextlib.nullcontext(), begun(staged, RESTORED_NAMES):
            for file in manifest.files:
                with opened_inside(data, file.name) as source:
                    copy(source, staged / file.name)
            sync_folders(staged)
            check_files(staged, manifest.files)
            _checked_log(staged, manifest)
            _give_place(staged, root, inside=inside)
    return manifest


def _refuse_place(layout: Layout) -> None:
    root = layout.root
    if not os.path.lexists(root):
        return
    if not root.is_dir():
        raise BackupUnusable("There is something already", f"{root} is no folder: name another --data-dir.")
    if layout.lock.is_file():
        with _kept_from_servers(layout):
            pass
    passed_over = {_OF_THE_DISK, layout.lock.name, f".{root.name}.restore-partial"} if root.is_mount() else set()
    if found := sorted({entry.name for entry in root.iterdir()} - passed_over):
        detail = f"{root} has {found[0]!r} in it: move it away, or name another --data-dir."
        raise BackupUnusable("The data directory is not empty", detail)


@contextlib.contextmanager
def _kept_from_servers(layout: Layout) -> Iterator[None]:
    """Hold the lock of a data directory, as a server does.

    Raises:
        DirectoryInUse: a server has it.
    """
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        detail = f"{layout.root}: a backup goes where there is none, so name another --data-dir."
        raise DirectoryInUse("A server has this data directory", detail) from error
    finally:
        os.close(descriptor)


def _check_schema(file: Path, schema: Callable[[int], str]) -> None:
    """Refuse a file that has anything but our tables: a view may have no end, and a trigger does what it likes.

    Raises:
        BackupUnusable: it has.
    """
    asked = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as found,
            contextlib.closing(sqlite3.connect(":memory:")) as ours,
        ):
            found.execute("PRAGMA trusted_schema = OFF")
            ours.executescript(schema(int(found.execute("PRAGMA user_version").fetchone()[0])))
            is_ours = found.execute(asked).fetchall() == ours.execute(asked).fetchall()
    except sqlite3.DatabaseError as error:
        raise BackupUnusable("The log of the backup is damaged", f"{file}: {error}.") from error
    if not is_ours:
        raise BackupUnusable("The log of the backup is none of ours", f"{file}: it has other tables than it should.")


def _checked_log(data: Path, manifest: Manifest) -> Rebuilt:
    """What the log of a backup says; every record is what was written, up to the one that the manifest names.

    Raises:
        BackupUnusable: it is not.
    """
    _check_schema(data / LOG, log_schema)
    if (data / SNAPSHOT).exists():
        _check_schema(data / SNAPSHOT, lambda _: TABLES)
    found = audit.verify(Layout(data))
    if found.faults:
        raise BackupUnusable(
            "The log of the backup is damaged", f"{data / LOG}: {next(audit.broken_records(found.faults))}."
        )
    if (found.records, found.digest) != (manifest.position, manifest.digest):
        detail = f"{data / LOG} ends with position {found.records} and {found.digest}, "
        raise BackupUnusable(
            "The log is not that of the manifest", f"{detail}not with {manifest.position} and {manifest.digest}."
        )
    with log_view(Layout(data)) as reader:
        return rebuild(reader, Layout(data).snapshot)


def _refuse_other_path(rebuilt: Rebuilt, manifest: Manifest, root: Path) -> None:
    """Refuse another path than the one that it had, where records name files by that: those of every job do."""
    if not rebuilt.state.jobs or os.path.realpath(manifest.data_dir) == os.path.realpath(root):
        return
    raise BackupUnusable(
        "The backup belongs to another path",
        f"Its jobs name their files in {manifest.data_dir}: say --data-dir {manifest.data_dir}. "
        f"To have them in {root}, make {manifest.data_dir} a link to it first.",
    )


def _refuse_living(rebuilt: Rebuilt, data: Path) -> None:
    """Refuse a backup whose trainings still run here: a server on it would take them for its own."""
    for job_id in rebuilt.state.running:
        if alive := processes_of(Attempt(job_id, rebuilt.state.jobs[job_id].attempt), Layout(data)):
            detail = (
                f"{job_id} is process {alive[0]}, which a server on this backup would take for its own. Stop it first."
            )
            raise BackupUnusable("A training of the backup still runs", detail)


def _give_place(staged: Path, root: Path, *, inside: bool) -> None:
    """Put what is whole in its place; into a disk of its own the log comes last, without which there is nothing."""
    if not inside:
        staged.rename(root)
        sync_folder(root.parent)
        return
    for name in sorted((path.name for path in staged.iterdir()), key=LOG.__eq__):
        (staged / name).rename(root / name)
    staged.rmdir()
    sync_folder(root)
