"""Takes a backup, beside a server that works and jobs that train.

The log first, and then what it names: what is named is there by then. What was removed since is in a later log, which
is copied in its place until log and files go together. A model and a dataset are never changed where they lie, and a
job that has ended changes no more. Of one that works the files are copied anew after each copy of the log, and as far
as the log knows them: not the end of its spool, nor how it ended meanwhile, for then its model would be missing.
"""

import os
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from modelforge import audit
from modelforge.backup.files import (
    Content,
    NotRegular,
    begun,
    content_of,
    copy,
    make_folders,
    opened,
    sync_folders,
    told,
)
from modelforge.backup.manifest import (
    FORMAT,
    LOG,
    OWN_NAMES,
    SEGMENTS,
    SNAPSHOT,
    BackedUpFile,
    Manifest,
    data_of,
    is_name,
    write_manifest,
)
from modelforge.backup.parts import ANEW, Part, parts_of
from modelforge.checkpoints import list_checkpoints
from modelforge.errors import BackupUnusable, ForgeError
from modelforge.event_log.log_errors import translated
from modelforge.event_log.sqlite import LogReader
from modelforge.event_log.view import log_view
from modelforge.layout import Layout
from modelforge.owner_files import sync_folder
from modelforge.projections.folding import Rebuilt
from modelforge.projections.snapshot_file import SnapshotReader
from modelforge.projections.snapshots import rebuild
from modelforge.supervisor.trash import remove
from modelforge.version import VERSION
from modelforge.visible_text import visible
from trainer_entry.wire.secret_files import SECRET_FILES

_TRIES = 20
_AGAIN_SECONDS = 0.1


class Backup(Struct, frozen=True, kw_only=True):
    """A backup that was taken. `missing`: what the log names and the data directory has not; `left_out`: its links.

    `away`: segments of the log that somebody keeps elsewhere.
    """

    manifest: Manifest
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    away: tuple[str, ...] = ()


class _Copied(Struct):
    """The copy of a part."""

    stamp: int
    files: dict[str, Content]


def take_backup(layout: Layout, backup: Path) -> Backup:
    """Copy a data directory into a new folder, which is there whole or not at all.

    Raises:
        BackupUnusable, LogUnusable, StorageFull: why there is none.
    """
    backup = backup.absolute()
    _refuse_place(layout, backup)
    partial = backup.with_name(f".{backup.name}.backup-partial")
    with told("The backup cannot be made"), begun(partial, OWN_NAMES):
        taken = _Taking(layout, data_of(partial)).take()
        sync_folders(partial)
        write_manifest(partial, taken.manifest)
        _refuse_place(layout, backup)
        partial.rename(backup)
        sync_folder(backup.parent)
    return taken


def _refuse_place(layout: Layout, backup: Path) -> None:
    if os.path.lexists(backup):
        raise BackupUnusable("There is something already", f"{backup}: name a folder that is not there yet.")
    if not backup.parent.is_dir():
        raise BackupUnusable("The backup has no place", f"Make {backup.parent} first.")
    jobs = layout.root / layout.jobs.name  # on a cluster a link into the shared root, also for who does not name that
    for own in (layout.root.resolve(), layout.at_nodes().resolve(), jobs.resolve().parent):
        if backup.parent.resolve().is_relative_to(own):
            detail = f"{backup} would be lost with {own}: name a place elsewhere, at best on another disk."
            raise BackupUnusable("The backup lies in what it is of", detail)


class _Taking:
    """A backup on its way: what was copied so far."""

    def __init__(self, layout: Layout, data: Path) -> None:
        self._layout = layout
        self._data = data
        self._copied: dict[str, _Copied] = {}
        self._left_out: set[str] = set()
        self._segments: dict[str, Content] = {}
        self._away: list[str] = []
        self._snapshot: dict[str, Content] = {}

    def take(self) -> Backup:
        """Copy log and files until they go together, or what is missing stays away.

        Raises:
            BackupUnusable: the log is damaged.
        """
        missing: list[str] = []
        for _ in range(_TRIES):
            before = missing
            log, rebuilt = self._copy_log()
            missing = self._copy_parts(parts_of(rebuilt)) + self._missing_checkpoints(rebuilt)
            if not missing or missing == before:
                break
            time.sleep(_AGAIN_SECONDS)  # what was removed, or replaced, is about to be recorded
        files = self._segments | {
            name: content for part in self._copied.values() for name, content in part.files.items()
        }
        manifest = Manifest(
            format=FORMAT,
            release=VERSION,
            made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            data_dir=str(self._layout.root),
            position=rebuilt.state.position,
            digest=rebuilt.digest,
            files=tuple(
                BackedUpFile(name, content.size, content.sha256)
                for name, content in sorted({LOG: log, **self._snapshot, **files}.items())
            ),
        )
        return Backup(
            manifest=manifest, missing=tuple(missing), left_out=tuple(sorted(self._left_out)), away=tuple(self._away)
        )

    def _copy_log(self) -> tuple[Content, Rebuilt]:
        """Copy the log as it stands now, in place of an earlier copy; what is in it, and what it says."""
        copied, path = Layout(self._data), self._data / LOG
        make_folders(self._data)
        path.unlink(missing_ok=True)
        unusable = self._copy_snapshot(copied)  # before the log: one that is newer than the log is of no use
        with log_view(self._layout) as reader:
            reader.copy_to(path)
            self._copy_segments(reader)
        if not self._away:
            self._snapshot = {}
            copied.snapshot.unlink(missing_ok=True)
        elif unusable is not None:
            raise unusable
        path.chmod(0o600)
        found = audit.verify(copied)
        if found.faults:
            detail = f"{next(audit.broken_records(found.faults))}. `modelforge doctor` says what to do."
            raise BackupUnusable("The log is damaged", detail)
        with log_view(copied) as reader:
            rebuilt = rebuild(reader, copied.snapshot if self._away else self._layout.snapshot)
        with opened(path) as file:
            os.fsync(file.fileno())
            return content_of(file), rebuilt

    def _copy_snapshot(self, copied: Layout) -> ForgeError | None:
        """Copy what a log is read from whose segments are elsewhere; why it cannot be, which matters only then."""
        self._snapshot = {}
        copied.snapshot.unlink(missing_ok=True)
        if not self._layout.snapshot.exists():
            return None
        try:
            with closing(SnapshotReader(self._layout.snapshot)) as snapshot:
                snapshot.copy_to(copied.snapshot)
        except sqlite3.DatabaseError as error:
            copied.snapshot.unlink(missing_ok=True)
            return translated(copied.snapshot, error)
        copied.snapshot.chmod(0o600)
        with opened(copied.snapshot) as file:
            os.fsync(file.fileno())
            self._snapshot[SNAPSHOT] = content_of(file)
        return None

    def _copy_segments(self, reader: LogReader) -> None:
        """Copy the segments that a log names, once each: they never change. Those that are away stay so."""
        self._away = []
        for segment in reader.segments():
            name = f"{SEGMENTS}/{segment.name}"
            if name in self._segments:
                continue
            try:
                with opened((self._layout.root / name).resolve()) as file:  # somebody may keep it on another disk
                    self._segments[name] = copy(file, self._data / name)
            except FileNotFoundError:
                self._away.append(name)

    def _copy_parts(self, parts: list[Part]) -> list[str]:
        """Copy what is not copied yet, and drop what the log does not name any more; the names of what is missing."""
        stamps = {part.name: part.stamp for part in parts}
        for name, copied in [*self._copied.items()]:
            if copied.stamp == ANEW or stamps.get(name) != copied.stamp:
                self._drop(name)
        missing = []
        for part in parts:
            if part.name not in self._copied and not self._copy_part(part):
                self._drop(part.name)
                if not part.may_be_missing:
                    missing.append(part.name)
        return missing

    def _missing_checkpoints(self, rebuilt: Rebuilt) -> list[str]:
        """The checkpoints from which a job would go on, where their copies are not there."""
        newest = (
            f"jobs/{job_id}/checkpoints/{Path(details.checkpoint).name}"
            for job_id, details in rebuilt.read_models.jobs.items()
            if details.checkpoint is not None and details.status != "completed"
        )
        return [name for name in newest if not (self._data / name).is_dir()]

    def _drop(self, name: str) -> None:
        self._copied.pop(name, None)
        if os.path.lexists(self._data / name):
            remove(self._data / name)

    def _copy_part(self, part: Part) -> bool:
        """Whether a part is copied, and whole."""
        source = self._layout.root / part.name
        copied = self._copied[part.name] = _Copied(part.stamp, {})
        try:
            if source.is_dir():
                self._copy_folder(source, part, copied)
                self._drop_torn(part, copied)
                return True
            with opened(source.resolve()) as file:  # somebody may keep it on another disk
                copied.files[part.name] = copy(file, self._data / part.name)
        except (FileNotFoundError, NotRegular):
            return False
        return part.sha256 in {None, copied.files[part.name].sha256}

    def _copy_folder(self, source: Path, part: Part, copied: _Copied) -> None:
        """Copy a folder. In that of a job files come and go; all else is whole, or an error is raised."""
        make_folders(self._data / part.name)
        for folder, folders, names in os.walk(source, onerror=None if part.is_alive else _reraise):
            for path in (Path(folder, name) for name in sorted([*names, *folders])):
                name = f"{part.name}/{path.relative_to(source).as_posix()}"
                if path.is_symlink() or not is_name(name):
                    self._left_out.add(visible(name))
                elif path.name in names and not name.endswith(".partial"):
                    self._copy_file(path, name, part, copied)

    def _copy_file(self, path: Path, name: str, part: Part, copied: _Copied) -> None:
        read = None
        if path.name in SECRET_FILES and part.name.startswith("jobs/"):
            return
        if part.spool is not None and Path(name).parent == Path(part.spool[0]).parent:
            if path.name == "exit.json":
                return
            read = part.spool[1] if name == part.spool[0] else None
        try:
            with opened(path) as file:
                copied.files[name] = copy(file, self._data / name, read)
        except NotRegular:
            self._left_out.add(name)
        except FileNotFoundError:
            if not part.is_alive:
                raise

    def _drop_torn(self, part: Part, copied: _Copied) -> None:
        """Take away copies of checkpoints that came, or went, while they were copied."""
        for found in list_checkpoints(self._data / part.name / "checkpoints"):
            if not found.valid or (part.step is not None and found.step > part.step):
                torn = Path(found.path)
                remove(torn)
                within = f"{torn.relative_to(self._data).as_posix()}/"
                copied.files = {name: content for name, content in copied.files.items() if not name.startswith(within)}


def _reraise(error: OSError) -> None:
    raise error
