"""The rows of Parquet files as records in JSON; a part at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from modelforge.datasets.validation.columns import FIELDS, Columns, check_columns
from modelforge.datasets.validation.error_types import RecordError, UnreadableFile, too_large
from modelforge.datasets.validation.field_names import REFUSED, plain_name
from modelforge.datasets.validation.tables import Row, composed

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

_MOST_ROWS = 256  # at a time
_ROWS_BYTES = 2 << 20
_BUFFER = 1 << 20
_QUOTED = 200  # characters of a library's message


def rows_of_parquet(path: Path, columns: Columns, limit: int) -> Iterator[Row]:
    """The rows of a Parquet file, of the columns that are fields.

    Raises:
        UnreadableFile: the file cannot be read to its end, or says that it is larger than `limit` bytes.
    """
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > limit:
                raise too_large(1, "Unpacked, the file is", limit, path.stat().st_size)
            schema = file.schema_arrow
            check_columns(columns, schema.names)
            read = [name for name in schema.names if _is_read(name, columns)] or schema.names[:10]
            kinds = {columns.field(column.name): column.type for column in schema}
            longest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
            at_once = max(1, min(_MOST_ROWS, _ROWS_BYTES // max(1, longest)))
            for batch in file.iter_batches(batch_size=at_once, columns=read, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, _row({columns.field(name): value for name, value in row.items()}, kinds, columns)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UnreadableFile(number + 1, f"The Parquet file cannot be read: {_first_line(error)}.") from error


def _is_read(name: str, columns: Columns) -> bool:
    return columns.every or plain_name(columns.field(name)) in FIELDS | REFUSED or columns.is_source(name)


def columns_not_read(path: Path, columns: Columns) -> list[str]:
    """The columns of a Parquet file that could be read that are none of a format."""
    from pyarrow import parquet

    return [name for name in parquet.read_schema(path).names if not _is_read(name, columns)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")[:_QUOTED]


def _row(values: dict[str, object], kinds: dict[str, "pa.DataType"], columns: Columns) -> bytes | RecordError:
    """A row in JSON. `kinds`: of what its fields are."""
    for field, value in values.items():
        try:
            values[field] = _plain(value, kinds[field])
        except UnicodeDecodeError:
            return RecordError(field, "It is no text, and not in UTF-8.")
    try:
        return composed(values, columns)
    except (ValueError, UnicodeError) as error:
        return RecordError(None, f"The row cannot be written as JSON: {error}.")


def _plain(value: object, kind: "pa.DataType") -> object:
    """A value as JSON has it: bytes as text, a short float with its own digits, an object without empty fields.

    A field that only the objects of other rows have is null in Arrow.
    """
    import pyarrow as pa

    match value:
        case bytes():
            return value.decode()
        case float() if pa.types.is_float32(kind) or pa.types.is_float16(kind):
            return float(str(np.float32(value) if pa.types.is_float32(kind) else np.float16(value)))
        case list() if pa.types.is_map(kind):
            return {str(key): _plain(item, kind.item_type) for key, item in value}
        case list():
            return [_plain(item, kind.value_type) for item in value]
        case dict():
            fields = {name: _plain(item, kind.field(name).type) for name, item in value.items()}
            return {name: item for name, item in fields.items() if item is not None}
        case _:
            return value
