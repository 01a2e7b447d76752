"""Copies a model out, as a folder or an archive, and reads the copy again before it gets its place.

An archive of the same model is the same to the byte: files by name, without times, owners and compression. Its paths
begin with the model's name.
"""

import hashlib
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, assert_never

from msgspec import Struct

from trainer_entry.runtime.disk import disk_full_errors, sync_entry, sync_tree
from trainer_entry.runtime.failures import CopyDiffers, ModelUnavailable, PlaceTaken
from trainer_entry.runtime.folders import held
from trainer_entry.runtime.progress import Progress, describe
from trainer_entry.wire import AttemptSpec, Export, Exported, ExportFormat

_BLOCK = 1 << 20
_MODE = 0o644
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_UNIX = 3


class ModelFile(Struct, frozen=True, gc=False):
    """A file of a model: its path, the name that it has from the model's folder on, and its size in bytes."""

    path: Path
    name: str
    size: int


def files_of(folder: Path) -> list[ModelFile]:
    """The files of a model, by name.

    Raises:
        ModelUnavailable: there are none.
    """
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    files = [ModelFile(path, path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]
    if not files:
        raise ModelUnavailable(f"There is no model in {folder} any more.")
    return sorted(files, key=lambda file: file.name.encode())


class Written(Struct, frozen=True):
    """The SHA-256 of each file of a copy as it was written, and what the copy has not, or has otherwise."""

    sums: dict[str, str]
    warnings: tuple[str, ...] = ()


def export(spec: AttemptSpec, work: Export, progress: Progress) -> Exported:
    """Copy a model to the job's `output_dir`, which is there whole or not at all.

    Raises:
        ModelUnavailable: the model is not there.
        PlaceTaken: something else is where it was to go.
        PlaceMoved: a folder on the way to it is a link now.
        CopyDiffers: the copy does not read as what was written.
        NotWritable, QuantizerFailed: it cannot be written as GGUF.
        BaseChanged, NotMergeable: an adapter cannot be merged into its base for that.
    """
    output = Path(spec.job.output_dir)
    root = Path(work.root or "/")  # what an older server resolved had no link on the whole way
    with held(root, output.parent) as folder:
        return _export(spec, work, progress, folder)


def _export(spec: AttemptSpec, work: Export, progress: Progress, folder: Path) -> Exported:
    """Copy a model into a folder that is held open: no name on the way to it is looked up again."""
    job, files = spec.job, files_of(Path(work.path))
    known_as, partial = Path(job.partial_output), folder / Path(job.partial_output).name
    output = folder / Path(job.output_dir).name
    shutil.rmtree(partial, ignore_errors=True)  # of an earlier attempt that was killed
    progress.enter("exporting")
    if work.format != "gguf":
        progress.begin(2 * sum(file.size for file in files), "bytes", describe())  # each is written, and read again
    partial.mkdir()
    copy = partial / "copy"
    with disk_full_errors(partial, known_as):
        written = _write(spec, files, copy, work, progress)
        sync_tree(partial)
    read, sums = _read(copy, work, progress), written.sums
    if read != sums:
        wrong = sorted(name for name in sums.keys() | read.keys() if sums.get(name) != read.get(name))
        raise CopyDiffers(f"{known_as} does not read as it was written: {', '.join(wrong)}. Does the disk fail?")
    sha256, size = _digest(copy, read), _size(copy)
    progress.commit()
    if not _give_place(copy, output, sha256, work.format):
        raise PlaceTaken(f"There is something else at {job.output_dir}: take it away, or export to another path.")
    shutil.rmtree(partial)
    sync_entry(folder)
    return Exported(
        path=job.output_dir, format=work.format, files=len(read), size_bytes=size, sha256=sha256,
        quantization=work.quantization, warnings=written.warnings,
    )  # fmt: skip


class _Reading:
    """A file that is hashed and counted as it is read."""

    def __init__(self, file: IO[bytes], progress: Progress) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self._progress.advance(len(data))
        return data

    def read_all(self) -> str:
        """The hash of the whole file, in hexadecimal digits."""
        while self.read(_BLOCK):
            pass
        return self.digest.hexdigest()


def _write(spec: AttemptSpec, files: list[ModelFile], copy: Path, work: Export, progress: Progress) -> Written:
    """Write the copy; the SHA-256 of each file is that of what was read from the model, where it is one of its own."""
    match work.format:
        case "folder":
            return Written({file.name: _copied(file, progress, _into_folder(copy, file)) for file in files})
        case "tar":
            with tarfile.open(copy, "w", format=tarfile.PAX_FORMAT) as tar:
                return Written({file.name: _copied(file, progress, _into_tar(tar, work.name, file)) for file in files})
        case "zip":
            with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as archive:
                into = {file.name: _into_zip(archive, work.name, file) for file in files}
                return Written({file.name: _copied(file, progress, into[file.name]) for file in files})
        case "gguf":
            from trainer_entry.artifacts.gguf.writing import write_gguf

            made = write_gguf(spec, work, copy, progress)
            return Written(made.sums, made.warnings)
        case _:
            assert_never(work.format)


def _copied(file: ModelFile, progress: Progress, write: Callable[[_Reading], None]) -> str:
    with file.path.open("rb") as source:
        reading = _Reading(source, progress)
        write(reading)
    return reading.digest.hexdigest()


def _into_folder(copy: Path, file: ModelFile) -> Callable[[_Reading], None]:
    def write(source: _Reading) -> None:
        place = copy / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)

    return write


def _into_tar(tar: tarfile.TarFile, root: str, file: ModelFile) -> Callable[[_Reading], None]:
    def write(source: _Reading) -> None:
        entry = tarfile.TarInfo(f"{root}/{file.name}")  # without a time and an owner
        entry.size, entry.mode = file.size, _MODE
        tar.addfile(entry, source)

    return write


def _into_zip(archive: zipfile.ZipFile, root: str, file: ModelFile) -> Callable[[_Reading], None]:
    def write(source: _Reading) -> None:
        entry = zipfile.ZipInfo(f"{root}/{file.name}", _ZIP_EPOCH)
        entry.create_system, entry.external_attr, entry.file_size = _UNIX, _MODE << 16, file.size
        with archive.open(entry, "w") as target:
            shutil.copyfileobj(source, target, _BLOCK)

    return write


def _read(copy: Path, work: Export, progress: Progress) -> dict[str, str]:
    """The SHA-256 of each file in the copy."""
    prefix = f"{work.name}/"
    found: dict[str, str] = {}
    match work.format:
        case "folder" | "gguf":
            for file in files_of(copy):
                with file.path.open("rb") as opened:
                    found[file.name] = _Reading(opened, progress).read_all()
        case "tar":
            with tarfile.open(copy, "r:") as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is not None:
                        found[member.name.removeprefix(prefix)] = _Reading(content, progress).read_all()
        case "zip":
            with zipfile.ZipFile(copy) as archive:
                for name in archive.namelist():
                    with archive.open(name) as entry:
                        found[name.removeprefix(prefix)] = _Reading(entry, progress).read_all()
        case _:
            assert_never(work.format)
    return found


def _digest(copy: Path, sums: dict[str, str]) -> str:
    """The hash of an archive; of a folder, that of what `sha256sum` says of its files."""
    if copy.is_dir():
        lines = (f"{sums[name]}  {name}\n".encode() for name in sorted(sums, key=str.encode))
        return hashlib.sha256(b"".join(lines)).hexdigest()
    with copy.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(copy: Path) -> int:
    return sum(file.size for file in files_of(copy)) if copy.is_dir() else copy.stat().st_size


def _give_place(copy: Path, output: Path, sha256: str, kind: ExportFormat) -> bool:
    """Whether the copy has its place now: it is free, or an earlier attempt gave it, and was killed then."""
    if os.path.lexists(output):
        return not output.is_symlink() and _is_same(output, sha256, kind)
    copy.rename(output)
    return True


def _is_same(place: Path, sha256: str, kind: ExportFormat) -> bool:
    is_folder = kind in {"folder", "gguf"}
    if is_folder != place.is_dir():
        return False
    sums: dict[str, str] = {}
    if is_folder:
        for path in (path for path in place.rglob("*") if path.is_file()):
            with path.open("rb") as file:
                sums[path.relative_to(place).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digest(place, sums) == sha256
