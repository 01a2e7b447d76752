"""What a check is asked, and what it answers."""

from typing import Literal

from msgspec import Struct

from modelforge.errors import DatasetReport
from trainer_entry import wire

UNREADABLE = 3
NO_ROOM_LEFT = 4
NO_MEMORY_LEFT = 5
"""Exit codes; an interpreter that fails has others."""


class CheckRequest(Struct, frozen=True, kw_only=True, gc=False):
    """A file to check.

    `columns`: which of its columns are which fields. `encoding`: of its text, by Python's name; None where it is to be
    found. `records`: where its records go as JSON lines, where the file is
    not JSON lines itself. `scratch`: a folder for what is only needed meanwhile. `limit`: bytes that it may have
    unpacked. `sha256`: of its bytes, where it is known. `reserve`: bytes of the disk that stay free.
    """

    path: str
    filename: str
    records: str
    scratch: str
    limit: int
    columns: dict[str, str | list[str]] | None = None
    encoding: str | None = None
    sha256: str | None = None
    reserve: int = 0


class CheckProgress(Struct, frozen=True, kw_only=True, tag="progress", gc=False):
    """How far a check is. A file that is no plain JSON lines is unpacked first; how large it will be is not known."""

    stage: Literal["unpacking", "checking"]
    done_bytes: int
    total_bytes: int | None


class CheckedContent(Struct, frozen=True, kw_only=True, gc=False):
    """What a file holds, whatever its records are.

    `records_sha256`: None where it is plain JSON lines itself. `has_tools`: some record has tools, or calls one.
    """

    container: wire.Container
    compression: wire.Compression | None
    num_examples: int
    size_bytes: int
    sha256: str
    records_sha256: str | None
    records_bytes: int | None
    report: DatasetReport
    columns: wire.FieldNames
    has_tools: bool


class DatasetCheck(CheckedContent, frozen=True, kw_only=True, tag="check", gc=False):
    """With the format of its records; None where none shows one."""

    format: wire.DatasetFormat | None


class ValidDataset(CheckedContent, frozen=True, kw_only=True, gc=False):
    """With the format of its records, in which no error was found."""

    format: wire.DatasetFormat


CheckMessage = CheckProgress | DatasetCheck
