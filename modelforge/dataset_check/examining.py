"""The lines of a file, examined by as many processes as there are cores, each on a stretch of its own."""

import itertools
import mmap
import multiprocessing
import os
import struct
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.dataset_check.duplicates import Duplicates, Numbers, find_duplicates
from modelforge.dataset_check.examination import LISTED, Examination, Findings
from modelforge.dataset_check.lines import chunks, split
from modelforge.dataset_check.records import Fault, format_of
from modelforge.errors import LineError
from trainer_entry import wire

_WORTH_A_PROCESS = 16 << 20
_MOST_PROCESSES = 8
_LOOKED_AT = 1000  # lines, for the first that shows a format
_TOLD_EVERY_SECONDS = 0.5
_NUMBER = struct.Struct("q")


class Examined(Struct, kw_only=True):
    """What was found in all lines of a file. `unfinished_end`: the last one has no line break."""

    format: wire.DatasetFormat | None
    found: Findings
    duplicates: Duplicates
    unfinished_end: bool


class _Part(Struct, kw_only=True, gc=False):
    """What one process found, or the error that kept it from it."""

    findings: Findings | None = None
    errno: int | None = None
    strerror: str | None = None


class Examining:
    """An examination under way."""

    def __init__(self, path: Path, scratch: Path, worth_a_process: int = _WORTH_A_PROCESS) -> None:
        """Begin. `scratch`: a folder for what is only needed meanwhile. `worth_a_process`: so many bytes.

        Raises:
            OSError: the file cannot be read.
        """
        self._path = path
        self._scratch = scratch
        self._size = path.stat().st_size
        self._format = first_format(path)
        cores = len(os.sched_getaffinity(0)) if self._format is not None else 1
        count = max(1, min(cores, _MOST_PROCESSES, self._size // worth_a_process))
        bounds = [self._size * place // count for place in range(count + 1)]
        self._stretches = [*itertools.pairwise(bounds)]
        self._done = mmap.mmap(-1, _NUMBER.size * count)
        self._parts: list[tuple[BaseProcess, Connection]] = []
        if count > 1:
            # A fork has everything imported, and the same hashes of texts.
            context = multiprocessing.get_context("fork")
            for place in range(count):
                receiving, sending = context.Pipe(duplex=False)
                process = context.Process(target=self._examine_part, args=(place, sending), daemon=True)
                process.start()
                sending.close()
                self._parts.append((process, receiving))

    def finish(self, told: Callable[[int, int], None]) -> Examined:
        """Wait for its end; `told` hears how many bytes of how many are done, twice a second.

        Raises:
            OSError: the file cannot be read, or the disk is full.
        """
        if self._parts:
            findings = [self._received(process, receiving, told) for process, receiving in self._parts]
        else:
            findings = [self._examine(0, told)]
        dataset_format = self._format or next((found.format for found in findings if found.format), None)
        found = _joined(findings)
        duplicates = Duplicates()
        if dataset_format is not None and not found.error_count and found.records > 1:
            duplicates = find_duplicates(self._path, dataset_format, self._sieves(), found.stretches, LISTED)
        return Examined(
            format=dataset_format, found=found, duplicates=duplicates, unfinished_end=_ends_unfinished(self._path)
        )

    def _sieves(self) -> list[Path]:
        return [self._scratch / f"numbers-{place}" for place in range(len(self._stretches))]

    def _examine(self, place: int, told: Callable[[int, int], None]) -> Findings:
        begin, end = self._stretches[place]
        last_told = time.monotonic()
        with self._path.open("rb", buffering=0) as file, self._sieves()[place].open("wb") as out:
            numbers = Numbers(out)
            examination = Examination(self._format, numbers)
            for chunk in chunks(file, begin, end):
                examination.take(chunk)
                _NUMBER.pack_into(self._done, place * _NUMBER.size, chunk.offset - begin)
                if time.monotonic() - last_told > _TOLD_EVERY_SECONDS:
                    last_told = time.monotonic()
                    told(chunk.offset, self._size)
            numbers.flush()
        return examination.findings()

    def _examine_part(self, place: int, sending: Connection) -> None:
        try:
            part = _Part(findings=self._examine(place, lambda _done, _size: None))
        except OSError as error:
            part = _Part(errno=error.errno, strerror=error.strerror)
        sending.send_bytes(msgspec.msgpack.encode(part))
        sending.close()

    def _received(self, process: BaseProcess, receiving: Connection, told: Callable[[int, int], None]) -> Findings:
        while not receiving.poll(_TOLD_EVERY_SECONDS):
            done = sum(number for (number,) in _NUMBER.iter_unpack(self._done[:]))
            told(done, self._size)
        try:
            data = receiving.recv_bytes()
        except EOFError:
            process.join()
            raise ChildProcessError(f"A part of the check ended with {process.exitcode}") from None
        process.join()
        part = msgspec.msgpack.decode(data, type=_Part)
        if part.findings is None:
            raise OSError(part.errno, part.strerror)
        return part.findings


def first_format(path: Path) -> wire.DatasetFormat | None:
    """The format that the first record shows, if one of the first lines does.

    Raises:
        OSError: the file cannot be read.
    """
    looked_at = 0
    with path.open("rb") as file:
        for chunk in chunks(file):
            for line in split(chunk.data or b""):
                looked_at += 1
                if looked_at > _LOOKED_AT:
                    return None
                try:
                    shown = format_of(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if not isinstance(shown, Fault):
                    return shown
    return None


def _joined(findings: list[Findings]) -> Findings:
    """The findings in stretches that follow each other, as those of one."""
    whole = Findings()
    for found in findings:
        before = whole.lines
        whole.errors += [_moved(error, before) for error in found.errors]
        whole.warnings += [_moved(warning, before) for warning in found.warnings]
        whole.stretches += [msgspec.structs.replace(stretch, line=stretch.line + before) for stretch in found.stretches]
        if whole.carriage_return is None and found.carriage_return is not None:
            whole.carriage_return = found.carriage_return + before
        whole.lines += found.lines
        whole.records += found.records
        whole.error_count += found.error_count
        whole.warning_count += found.warning_count
    return whole


def _moved(told: LineError, lines: int) -> LineError:
    return msgspec.structs.replace(told, line=told.line + lines)


def _ends_unfinished(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
