"""The lines of a file, validated by as many processes as there are cores, a stretch at a time."""

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from modelforge.datasets.validation.duplicates import Duplicates, Numbers, find_duplicates
from modelforge.datasets.validation.error_types import RecordError
from modelforge.datasets.validation.line_validator import LISTED, Findings, LineValidator
from modelforge.datasets.validation.lines import chunks, split
from modelforge.datasets.validation.recognition import format_of
from modelforge.errors import LineError
from trainer_entry import wire

_STRETCH = 16 << 20
_MOST_STRETCHES = 64
_MOST_PROCESSES = 8
_SAMPLED_LINES = 1000  # in which the first that shows a format is searched
_REPORT_EVERY_SECONDS = 0.5


class ValidatedLines(Struct, kw_only=True):
    """What was found in all lines of a file. `unfinished_end`: the last one has no line break."""

    format: wire.DatasetFormat | None
    found: Findings
    duplicates: Duplicates
    unfinished_end: bool


class _Stretch(NamedTuple):
    """A part of a file for one process: the lines that begin in it, and where the numbers of its records go."""

    path: Path
    numbers: Path
    format: wire.DatasetFormat | None
    begin: int
    end: int


class ParallelValidation:
    """A validation under way."""

    def __init__(self, path: Path, scratch: Path, stretch: int = _STRETCH) -> None:
        """Begin. `scratch`: a folder for what is only needed meanwhile. `stretch`: so many bytes are one.

        Raises:
            OSError: the file cannot be read.
        """
        self._path = path
        self._size = path.stat().st_size
        self._format = first_format(path)
        count = max(1, min(_MOST_STRETCHES, self._size // stretch)) if self._format is not None else 1
        bounds = [self._size * place // count for place in range(count + 1)]
        self._stretches = [
            _Stretch(path=path, numbers=scratch / f"numbers-{place}", format=self._format, begin=begin, end=end)
            for place, (begin, end) in enumerate(itertools.pairwise(bounds))
        ]
        self._parts: list[Future[bytes]] = []
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            # A fork has everything imported, and the same hashes of texts.
            processes = min(count, len(os.sched_getaffinity(0)), _MOST_PROCESSES)
            self._pool = ProcessPoolExecutor(processes, multiprocessing.get_context("fork"))
            self._parts = [self._pool.submit(_validate_apart, stretch) for stretch in self._stretches]

    def finish(self, on_progress: Callable[[int, int], None]) -> ValidatedLines:
        """Wait for its end; `on_progress` gets how many bytes of how many are done, twice a second.

        Raises:
            OSError: the file cannot be read, or the disk is full.
        """
        if self._pool is None:
            findings = [_validate(self._stretches[0], lambda offset: on_progress(offset, self._size))]
        else:
            findings = self._received(self._pool, on_progress)
        dataset_format = self._format or next((found.format for found in findings if found.format), None)
        found = _joined(findings)
        duplicates = Duplicates()
        if dataset_format is not None and not found.error_count and found.records > 1:
            sieves = [stretch.numbers for stretch in self._stretches]
            duplicates = find_duplicates(self._path, dataset_format, sieves, found.stretches, LISTED)
        return ValidatedLines(
            format=dataset_format, found=found, duplicates=duplicates, unfinished_end=_ends_unfinished(self._path)
        )

    def _received(self, pool: ProcessPoolExecutor, on_progress: Callable[[int, int], None]) -> list[Findings]:
        with pool:
            waiting = set(self._parts)
            while waiting:
                done, waiting = wait(waiting, _REPORT_EVERY_SECONDS, FIRST_EXCEPTION)
                for part in done:
                    part.result()
                on_progress(self._size * (len(self._parts) - len(waiting)) // len(self._parts), self._size)
        return [msgspec.msgpack.decode(part.result(), type=Findings) for part in self._parts]


def _validate_apart(stretch: _Stretch) -> bytes:
    return msgspec.msgpack.encode(_validate(stretch, lambda _offset: None))


def _validate(stretch: _Stretch, on_progress: Callable[[int], None]) -> Findings:
    last_reported = time.monotonic()
    with stretch.path.open("rb", buffering=0) as file, stretch.numbers.open("wb") as out:
        numbers = Numbers(out)
        validator = LineValidator(stretch.format, numbers)
        for chunk in chunks(file, stretch.begin, stretch.end):
            validator.take(chunk)
            if time.monotonic() - last_reported > _REPORT_EVERY_SECONDS:
                last_reported = time.monotonic()
                on_progress(chunk.offset)
        numbers.flush()
    return validator.findings()


def first_format(path: Path) -> wire.DatasetFormat | None:
    """The format that the first record shows, if one of the first lines does.

    Raises:
        OSError: the file cannot be read.
    """
    sampled = 0
    with path.open("rb") as file:
        for chunk in chunks(file):
            for line in split(chunk.data or b""):
                sampled += 1
                if sampled > _SAMPLED_LINES:
                    return None
                try:
                    shown = format_of(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if not isinstance(shown, RecordError):
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
        whole.not_utf8 += found.not_utf8
        whole.not_texts += found.not_texts
        whole.has_tools = whole.has_tools or found.has_tools
        whole.used = sorted({*whole.used, *found.used})
        whole.ignored = sorted({*whole.ignored, *found.ignored})
        whole.glimpses = found.glimpses | whole.glimpses
        whole.warning_count += found.warning_count
    return whole


def _moved(error: LineError, lines: int) -> LineError:
    return msgspec.structs.replace(error, line=error.line + lines)


def _ends_unfinished(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
