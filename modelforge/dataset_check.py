"""Checks the records of a dataset in one pass: format, every line, and the hash of the bytes that were read.

Runs as a process of its own (`python -m modelforge.dataset_check FILE`), so that gigabytes neither block the
server nor stay in its memory; `check_dataset` is how the server runs it.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.child_process import run_module
from modelforge.dataset_faults import faults
from modelforge.dataset_records import EXPECTED, Fault, format_of
from modelforge.errors import BadInput, DatasetReport, InvalidDataset, LineError
from modelforge.fields import narrowed
from trainer_entry import wire

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 16 << 20
_LISTED = 100
_UNREADABLE = 3  # the exit code; an interpreter that fails has others
_BOM = b"\xef\xbb\xbf"


class DatasetCheck(Struct, frozen=True, kw_only=True, gc=False):
    """What a file holds. `format` is None where no record shows one."""

    format: wire.DatasetFormat | None
    num_examples: int
    size_bytes: int
    sha256: str
    report: DatasetReport


class ValidDataset(Struct, frozen=True, kw_only=True, gc=False):
    """What a file holds in which no fault was found."""

    format: wire.DatasetFormat
    num_examples: int
    size_bytes: int
    sha256: str
    report: DatasetReport


class _Check:
    """The pass over one file."""

    def __init__(self) -> None:
        self.format: wire.DatasetFormat | None = None
        self.records = 0
        self.errors: list[LineError] = []
        self.error_count = 0

    def take(self, number: int, line: bytes) -> None:
        """Check one line; a blank one holds no record."""
        if not line.strip():
            return
        try:
            line.decode()  # the decoder passes over what it does not need, text or not
            self._take(number, line)
        except msgspec.ValidationError:
            self.fault(number, None, f"The line is no JSON object. {EXPECTED}")
        except RecursionError:
            self.fault(number, None, "The line is nested too deeply.")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fault(number, None, _what_is_no_json(line, error))

    def _take(self, number: int, line: bytes) -> None:
        if self.format is None:
            shown = format_of(line)
            if isinstance(shown, Fault):
                self.fault(number, shown.field, shown.message)
                return
            self.format = shown
        for found in faults(line, self.format):
            self.fault(number, found.field, found.message)
        self.records += 1

    def fault(self, number: int, field: str | None, message: str) -> None:
        """Count a fault, and list it if it is among the first."""
        self.error_count += 1
        if len(self.errors) < _LISTED:
            self.errors.append(LineError(number, field, message))


def _what_is_no_json(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as found:
        return f"The line is not UTF-8 (byte {found.start + 1} of it); save the file as UTF-8."
    return f"The line is not valid JSON: {error}."


def check(path: Path) -> DatasetCheck:
    """Read a file once.

    Raises:
        OSError: it cannot be read.
    """
    found = _Check()
    sha256 = hashlib.sha256()
    size = number = 0
    for number, line in enumerate(_lines(path, sha256), start=1):
        if line is None:
            found.fault(number, None, f"The line is longer than {_LONGEST_LINE} bytes.")
        elif number == 1 and line.startswith(_BOM):
            found.fault(1, None, "The file begins with a byte order mark; save it as UTF-8 without one.")
        else:
            found.take(number, line)
    size = path.stat().st_size
    if not found.records and not found.error_count:
        found.fault(max(number, 1), None, f"The file has no record. {EXPECTED}")
    return DatasetCheck(
        format=found.format,
        num_examples=found.records,
        size_bytes=size,
        sha256=sha256.hexdigest(),
        report=DatasetReport(valid=not found.error_count, errors=tuple(found.errors), error_count=found.error_count),
    )


def _lines(path: Path, sha256: "hashlib._Hash") -> Iterator[bytes | None]:
    """The lines of a file without their ends; None for one that is too long to be kept."""
    rest = bytearray()
    too_long = False
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            *ends, last = chunk.split(b"\n")
            for end in ends:
                yield None if too_long or len(rest) + len(end) > _LONGEST_LINE else bytes(rest) + end
                rest.clear()
                too_long = False
            too_long = too_long or len(rest) + len(last) > _LONGEST_LINE
            rest += b"" if too_long else last
    if rest or too_long:
        yield None if too_long else bytes(rest)


async def check_dataset(path: Path, field: str) -> ValidDataset:
    """Check a file in a process of its own. `field`: where a client named it.

    Raises:
        InvalidDataset: its records cannot be trained on; the report has each by line.
        BadInput: it cannot be read.
    """
    ended = await run_module("modelforge.dataset_check", str(path))
    if ended.code == _UNREADABLE:
        raise BadInput("The dataset cannot be read", ended.words, field=field)
    if ended.code != 0:
        raise RuntimeError(f"The dataset check ended with {ended.code}: {ended.words}")
    found = msgspec.json.decode(ended.output, type=DatasetCheck)
    if not found.report.valid or found.format is None:
        raise invalid(found.report, field)
    return narrowed(found, ValidDataset)


def invalid(report: DatasetReport, field: str) -> BadInput:
    """The refusal of a file, with its first fault in words."""
    first = report.errors[0]
    where = f"line {first.line}" + (f", field {first.field!r}" if first.field else "")
    more = f" ({report.error_count} faults in all)" if report.error_count > 1 else ""
    return InvalidDataset("The dataset is not valid", f"{where}: {first.message}{more}", report, field=field)


def main() -> int:
    """Check the file that is named, and print the result as JSON."""
    path = Path(sys.argv[1])
    try:
        found = check(path)
    except OSError as error:
        sys.stderr.write(f"{path.name}: {error.strerror}\n")
        return _UNREADABLE
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
