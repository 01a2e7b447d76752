"""The check as the server runs it: in a process of its own, whose progress is read while it runs."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from modelforge.datasets.validation.columns import (
    COMPOSED,
    FIELDS,
    LONGEST_COLUMN,
    LONGEST_TEMPLATE,
    Source,
    columns_of,
    is_composed,
)
from modelforge.datasets.validation.protocol import (
    NO_MEMORY_LEFT,
    NO_ROOM_LEFT,
    UNREADABLE,
    CheckMessage,
    CheckProgress,
    CheckRequest,
    DatasetCheck,
    ValidDataset,
)
from modelforge.datasets.validation.text_encoding import encoding_named
from modelforge.errors import BadInput, DatasetReport, InvalidDataset, StorageFull
from modelforge.fields import project_struct
from modelforge.machine.child_environment import child_environment
from modelforge.machine.child_limits import ChildLimits, limit_process

_LONGEST_MESSAGE = 4 << 20
# A part of the file at a time takes memory and gives it back: it need not go back to the system each time (glibc).
_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(4 << 20)}
_MEMORY_BYTES = 4 << 30
_LIMITS = ChildLimits(memory_bytes=_MEMORY_BYTES)
_WITHOUT_MEMORY = frozenset({NO_MEMORY_LEFT, -signal.SIGABRT, -signal.SIGSEGV})
_MOST_COLUMNS = 20
_messages: msgspec.json.Decoder[CheckMessage] = msgspec.json.Decoder(CheckMessage)


def check_columns_given(columns: Mapping[str, Source], field: str = "columns") -> None:
    """Refuse a mapping of columns whose fields no format has. `field`: where a client named it.

    Raises:
        BadInput: the message says which fields there are.
    """
    for name, column in columns.items():
        if name not in FIELDS:
            raise BadInput(
                f"No format has a field {name[:40]!r}",
                f'Columns are named by field, as in {{"input": "request"}}; there are {", ".join(sorted(FIELDS))}.',
                field=field,
            )
        named = columns_of(column)
        if not named or not all(0 < len(one) <= LONGEST_COLUMN for one in named) or len(column) > LONGEST_TEMPLATE:
            raise BadInput(
                f"No column can have the name given for {name!r}",
                f"From 1 to {LONGEST_COLUMN} letters; or a list of such names, or a text with some in braces.",
                field=field,
            )
        if is_composed(column) and (name not in COMPOSED or len(named) > _MOST_COLUMNS):
            raise BadInput(
                f"{name!r} cannot be put together of columns",
                f"Of at most {_MOST_COLUMNS} columns can be made what is a text: {', '.join(sorted(COMPOSED))}.",
                field=field,
            )
    whole = [column for column in columns.values() if isinstance(column, str) and not is_composed(column)]
    if len(columns) > _MOST_COLUMNS or len({*whole}) < len(whole):
        raise BadInput("A column can be one field only", "Name each column once.", field=field)


def check_encoding_given(name: str, field: str = "encoding") -> str:
    """Python's name of an encoding that a client names. `field`: where.

    Raises:
        BadInput: there is none of that name.
    """
    try:
        return encoding_named(name)
    except LookupError:
        raise BadInput(
            f"There is no encoding {name[:40]!r}",
            "It is one such as utf-8, utf-16, windows-1252, windows-1251, shift_jis, gb18030, big5 or euc-kr.",
            field=field,
        ) from None


async def check_dataset(
    path: Path,
    field: str,
    *,
    filename: str,
    records: Path,
    limit: int,
    columns: Mapping[str, Source] | None = None,
    encoding: str | None = None,
    sha256: str | None = None,
    reserve: int = 0,
    on_progress: Callable[[CheckProgress], None] = lambda _progress: None,
) -> ValidDataset:
    """Check a file in a process of its own.

    `field`: where a client named it. `records`: a path in a folder for temporary files, where the records are left
    as JSON lines if the file is not plain JSON lines itself. `limit`: the bytes that it may have when unpacked.
    `encoding`: Python's name of what its text is in, and `sha256`: of the file, where they are known. `reserve`: bytes
    of the disk that stay free. `on_progress` gets how far the check is.

    Raises:
        InvalidDataset: its records cannot be trained on; the report has each by line.
        BadInput: it cannot be read.
        StorageFull: there is no room for what it needs meanwhile.
    """
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=records.parent, prefix="check-"))
    request = CheckRequest(
        path=str(path),
        filename=filename,
        records=str(records),
        scratch=str(scratch),
        limit=limit,
        columns=dict(columns) if columns else None,
        encoding=encoding,
        sha256=sha256,
        reserve=reserve,
    )
    try:
        found = await _answer(request, field, on_progress)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch)
    if not found.report.valid or found.format is None:
        raise invalid_dataset(found.report, field)
    return project_struct(found, ValidDataset)


async def _answer(request: CheckRequest, field: str, on_progress: Callable[[CheckProgress], None]) -> DatasetCheck:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "modelforge.datasets.validation", msgspec.json.encode(request).decode()),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=child_environment(**_MEMORY),
        limit=_LONGEST_MESSAGE,
        start_new_session=True,  # the processes that it starts end with it
    )
    limit_process(process.pid, _LIMITS)
    if process.stdout is None or process.stderr is None:
        raise AssertionError("both were asked for")
    words = asyncio.ensure_future(process.stderr.read())
    found: DatasetCheck | None = None
    try:
        async for line in process.stdout:
            match _messages.decode(line):
                case CheckProgress() as progress:
                    on_progress(progress)
                case DatasetCheck() as found:
                    pass
        code, text = await process.wait(), (await words).decode(errors="replace").strip()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        words.cancel()
    if code == UNREADABLE:
        raise BadInput("The dataset cannot be read", text, field=field)
    if code in _WITHOUT_MEMORY:
        raise BadInput(
            "The dataset takes too much memory to read",
            f"{request.filename}: it takes more than {_MEMORY_BYTES} bytes: make its records, or its parts, smaller.",
            field=field,
        )
    if code == NO_ROOM_LEFT:
        raise StorageFull("No space is left on the disk", f"Free some space and try again; {text}.")
    if code != 0 or found is None:
        raise RuntimeError(f"The dataset check ended with {code}: {text}")
    return found


def invalid_dataset(report: DatasetReport, field: str) -> BadInput:
    """The refusal of a file, with its first error in words."""
    first = report.errors[0]
    where = f"line {first.line}" + (f", field {first.field!r}" if first.field else "")
    more = f" ({report.error_count} errors in all)" if report.error_count > 1 else ""
    return InvalidDataset("The dataset is not valid", f"{where}: {first.message}{more}", report, field=field)
