"""Files that are compressed: as what, and the bytes that they hold, no more of them than are allowed."""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import Any, BinaryIO, assert_never

from modelforge.datasets.validation.error_types import UnreadableFile, short, too_large
from modelforge.event_log.zstd import zstd
from trainer_entry import wire

_MARKS: dict[bytes, wire.Compression] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
}
_ARCHIVES = {b"BZh": "compressed with bzip2", b"\xfd7zXZ\x00": "compressed with xz"}
_PART = 1 << 20
_ALWAYS = 100_000_000
_TIMES = 100
_LONGEST_LISTING = 16 << 20
_NAMED = 10
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DAMAGED = (BadGzipFile, EOFError, zlib.error, zstd.ZstdError, zipfile.BadZipFile, struct.error, NotImplementedError)


def most_unpacked(size: int, limit: int) -> int:
    """What a file of this size may become: a hundred times as much, or 100 MB, but no more than `limit`.

    Texts are packed to a fifth or a tenth, those that repeat themselves to less; what is made to fill disks, to a
    thousandth.
    """
    return min(limit, max(_ALWAYS, _TIMES * size))


def compression_of(head: bytes) -> wire.Compression | None:
    """How a file is compressed that begins so.

    Raises:
        UnreadableFile: it is in a way that is not read.
    """
    for mark, name in _ARCHIVES.items():
        if head.startswith(mark):
            raise UnreadableFile(1, f"The file is {name}; send it plain, or compressed with gzip, zstd or zip.")
    return next((compression for mark, compression in _MARKS.items() if head.startswith(mark)), None)


def reading(file: BinaryIO) -> Callable[[int], bytes]:
    """Read what is asked for, though it comes in parts."""

    def read(size: int) -> bytes:
        data = b""
        while len(data) < size and (part := file.read(size - len(data))):
            data += part
        return data

    return read


def unpacked(path: Path, compression: wire.Compression | None, limit: int) -> BinaryIO:
    """A file's bytes, unpacked where it is compressed; reading more than `limit` of them raises UnreadableFile.

    Raises:
        UnreadableFile: it is an archive of anything but one file that can be read.
    """
    match compression:
        case None:
            return path.open("rb")
        case "gzip":
            return _bounded(GzipFile(path, "rb"), limit, path)
        case "zstd":
            return _bounded(zstd.ZstdFile(path, "rb"), limit, path)
        case "zip":
            return _bounded(_Zipped(path), limit, path)
        case _:
            assert_never(compression)


def name_in_archive(path: Path) -> str:
    """The name of the one file in a ZIP archive.

    Raises:
        UnreadableFile: it is an archive of anything but one file that can be read.
    """
    zipped = _Zipped(path)
    zipped.close()
    return zipped.name


class _Zipped:
    """The one file in a ZIP archive."""

    def __init__(self, path: Path) -> None:
        self._file = _Listing(path, "rb")
        try:
            archive = zipfile.ZipFile(self._file)
            found = _one_file(archive.infolist())
            self.name = found.filename
            self._member = archive.open(found)
        except (*_DAMAGED, ValueError, RuntimeError, OverflowError) as error:
            self._file.close()
            raise UnreadableFile(1, f"The ZIP archive is damaged or cut off: {error}.") from error
        except BaseException:
            self._file.close()
            raise

    def read(self, size: int) -> bytes:
        return self._member.read(size)

    def close(self) -> None:
        self._member.close()
        self._file.close()


class _Listing(io.FileIO):
    """A file of which never much is read at once: not even an archive's list of files, however long it says it is."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LONGEST_LISTING:
            raise UnreadableFile(1, "The ZIP archive holds too many files; send one file in it.")
        return super().read(size) or b""


def _one_file(entries: list[zipfile.ZipInfo]) -> zipfile.ZipInfo:
    """The file among an archive's entries; those that systems leave there by themselves do not count."""
    files = [entry for entry in entries if not entry.is_dir() and not _is_of_system(entry.filename)]
    names = [entry.filename for entry in files]
    if "xl/workbook.xml" in names:
        raise UnreadableFile(1, "The file is a workbook of Excel; save the sheet as CSV, and send that.")
    if len(files) != 1:
        listed = ", ".join(map(short, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")
        there = f"{len(files)} files: {listed}" if files else "no file"
        raise UnreadableFile(1, f"The ZIP archive holds {there}; send an archive of one file, or the file itself.")
    (found,) = files
    if found.flag_bits & _ENCRYPTED:
        raise UnreadableFile(1, f"{short(found.filename)} is encrypted in the ZIP archive; send it without a password.")
    if found.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise UnreadableFile(
            1,
            f"{short(found.filename)} is compressed in the ZIP archive in an unusual way; send it deflated, or plain.",
        )
    return found


def _is_of_system(name: str) -> bool:
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith(".") or parts[-1] in {"Thumbs.db", "desktop.ini"}


class _Bounded(io.RawIOBase):
    """Unpacked bytes, and no more of them than are allowed."""

    def __init__(self, file: GzipFile | zstd.ZstdFile | _Zipped, limit: int, size: int) -> None:
        self._file = file
        self._size = size
        self._left = limit
        self._limit = limit
        self._lines = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(len(buffer))
        except _DAMAGED as error:
            raise UnreadableFile(self._lines, f"The compressed file is damaged or cut off: {error}.") from error
        self._left -= len(data)
        self._lines += data.count(b"\n")
        if self._left < 0:
            raise too_large(self._lines, "Unpacked, the file is", self._limit, self._size)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _bounded(file: GzipFile | zstd.ZstdFile | _Zipped, limit: int, path: Path) -> BinaryIO:
    return io.BufferedReader(_Bounded(file, limit, path.stat().st_size), _PART)
