"""The manifest of a backup: every file with its size and hash, and where in the log it was taken.

DIR/manifest.json          what is in the backup
DIR/manifest.json.sha256   its hash, as `sha256sum` writes it
DIR/data/                  the files, as they lie in a data directory
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec
from msgspec import Struct

from modelforge.backup.files import Content, content_of, opened, opened_inside, sync_folders
from modelforge.errors import BackupUnusable
from modelforge.owner_files import partial_of, write_owner_file
from modelforge.visible_text import hidden_in

FORMAT = 1
LOG = "events.sqlite"
SNAPSHOT = "snapshot.sqlite"
"""Only of a log that has segments elsewhere: without them it is read from its snapshot alone."""
_MANIFEST, _SUM, _DATA = "manifest.json", "manifest.json.sha256", "data"
OWN_NAMES = frozenset({_MANIFEST, _SUM, _DATA, *(partial_of(Path(name)).name for name in (_MANIFEST, _SUM))})
SEGMENTS = "log-segments"
_FOLDERS = frozenset({"datasets", "models", "jobs", "exports", SEGMENTS})
RESTORED_NAMES = _FOLDERS | {LOG, SNAPSHOT}
_LONGEST_NAME, _LONGEST_PART = 2000, 255
_LARGEST_MANIFEST = 1 << 30


class BackedUpFile(Struct, frozen=True, gc=False):
    """A file of a backup: its name in the data directory, and what is in it."""

    name: str
    size: int
    sha256: str

    @property
    def content(self) -> Content:
        """What is in it."""
        return Content(self.size, self.sha256)


class Manifest(Struct, frozen=True, kw_only=True):
    """What a backup is of. `position`, `digest`: of the last record. `data_dir`: the path that it had."""

    format: int
    release: str
    made_at: str
    data_dir: str
    position: int
    digest: str
    files: tuple[BackedUpFile, ...]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(file.size for file in self.files)


def data_of(backup: Path) -> Path:
    """The folder of a backup in which the files lie."""
    return backup / _DATA


def write_manifest(backup: Path, manifest: Manifest) -> None:
    """Write the manifest, and bring it to the disk: what it names has to be there."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    for name, content in ((_SUM, _sum_of(encoded)), (_MANIFEST, encoded)):
        write_owner_file(backup / name, content)
    sync_folders(backup)


def read_manifest(backup: Path) -> Manifest:
    """The manifest of a backup, whose names all lie in the folder.

    Raises:
        BackupUnusable: there is none, or it is not what was written.
    """
    if not backup.is_dir():
        raise BackupUnusable("There is no backup", f"{backup} is no folder.")
    try:
        encoded, stored = _read(backup / _MANIFEST), _read(backup / _SUM)
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except FileNotFoundError as error:
        detail = f"{error.filename} is missing: it is none, or one that was never finished."
        raise BackupUnusable("There is no backup", detail) from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupUnusable("The manifest cannot be read", f"{backup / _MANIFEST}: {error}") from error
    if not manifest.data_dir.startswith("/") or "\0" in manifest.data_dir:
        raise _foreign(backup, f"{manifest.data_dir!r} is no path of a data directory")
    if manifest.format != FORMAT:
        detail = f"{backup} has format {manifest.format}, this release knows {FORMAT}: install the newer release."
        raise BackupUnusable("A newer release made the backup", detail)
    _check_names(backup, manifest.files)
    if stored != _sum_of(encoded):
        raise BackupUnusable("The manifest is not what was written", f"{backup / _SUM} has another hash of it.")
    return manifest


def _read(path: Path) -> bytes:
    with opened(path) as file:
        if os.fstat(file.fileno()).st_size > _LARGEST_MANIFEST:
            raise BackupUnusable("The manifest is too large", f"{path} has more than {_LARGEST_MANIFEST} bytes.")
        return file.read()


def _sum_of(encoded: bytes) -> bytes:
    return f"{hashlib.sha256(encoded).hexdigest()}  {_MANIFEST}\n".encode()


def _check_names(backup: Path, files: Iterable[BackedUpFile]) -> None:
    """Refuse a manifest that names what lies elsewhere, or the same place twice; nobody knows who wrote it."""
    files_named: set[str] = set()
    folders_named: set[str] = set()
    for file in files:
        if not is_name(file.name):
            raise _foreign(backup, f"{file.name[:200]!r} is no name of a file in a data directory")
        if file.name in files_named:
            raise _foreign(backup, f"{file.name!r} is named twice")
        files_named.add(file.name)
        folders_named.update(str(folder) for folder in PurePosixPath(file.name).parents)
    if both := files_named & folders_named:
        raise _foreign(backup, f"{min(both)!r} is a file and a folder")
    if LOG not in files_named:
        raise _foreign(backup, f"{LOG} is missing")


def is_name(name: str) -> bool:
    """Whether a name is one of a file in a data directory that belongs into a backup."""
    parts = name.split("/")
    is_ours = name in {LOG, SNAPSHOT} or (len(parts) > 1 and parts[0] in _FOLDERS)
    is_plain = hidden_in(name) is None and all(part not in {"", ".", ".."} for part in parts)
    return is_ours and is_plain and len(name) <= _LONGEST_NAME and max(map(_bytes, parts)) <= _LONGEST_PART


def _bytes(part: str) -> int:
    return len(part.encode())


def _foreign(backup: Path, what: str) -> BackupUnusable:
    return BackupUnusable("The manifest names what no backup has", f"{backup / _MANIFEST}: {what}.")


def check_files(root: Path, files: Iterable[BackedUpFile]) -> None:
    """Refuse files that are not what the manifest says, and those that it does not name.

    Raises:
        BackupUnusable: the first one that is wrong.
    """
    known = set()
    for file in files:
        known.add(file.name)
        try:
            with opened_inside(root, file.name) as opened_file:
                found = content_of(opened_file)
        except OSError as error:
            raise BackupUnusable("A file cannot be read", f"{root / file.name}: {error.strerror or error}") from error
        if found != file.content:
            detail = f"{root / file.name} has {found.size} bytes with the SHA-256 {found.sha256}, and had {file.size} "
            raise BackupUnusable("A file is not what was written", f"{detail}with {file.sha256}.")
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(root).as_posix() not in known:
                raise BackupUnusable("A file is not in the manifest", f"{path}: take it away, if you put it there.")
