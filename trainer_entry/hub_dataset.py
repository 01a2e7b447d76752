"""Fetches a split of a dataset from the hub, at one commit, and writes its rows as JSON lines.

    python -m trainer_entry.hub_dataset

What to fetch (trainer_entry.wire.FetchRows) comes in on stdin as JSON, and how it went (AnyRows) goes out on stdout.
Rows are streamed: a dataset of any size takes the memory of a part of it. No code of a dataset is run, and nothing is
read but the files of its repository at that commit. The token for the hub comes from the environment, or from
`hf auth login`. What the libraries keep meanwhile lies in the scratch folder, and nothing in the user's caches.
"""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from trainer_entry.runtime.bounds import go_first
from trainer_entry.runtime.disk import NO_ROOM, check_free
from trainer_entry.runtime.failures import message_of
from trainer_entry.runtime.imports import importing
from trainer_entry.runtime.secrets import claim_secrets
from trainer_entry.runtime.stdout import claim_stdout
from trainer_entry.wire import AnyRows, FetchRows, RowsFetched, RowsRefused

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import DatasetBuilder

_READ = frozenset({"arrow", "csv", "json", "parquet", "text"})
"""The kinds of files whose rows are taken: none of them can bring code, as pickles in archives can."""
_ROWS_AT_ONCE = 256
_RETRIES = 5
_NO_ACCESS = frozenset({401, 403, 404})
_NICE = 10  # the server and its trainers come first
_FOREIGN = re.compile(r"^[a-z][a-z0-9+.-]*://|^/|^~|::|(^|/)\.\.(/|$)", re.IGNORECASE)


class _Refused(Exception):
    """The rows cannot be had."""

    def __init__(self, refusal: RowsRefused) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def main() -> int:
    """Fetch once."""
    stdout = claim_stdout()  # before any import that could print
    claim_secrets()
    asked = msgspec.json.decode(sys.stdin.buffer.read(), type=FetchRows)
    _prepare_process(Path(asked.scratch))
    said: AnyRows
    try:
        said = fetch(asked)
    except Exception as error:  # noqa: BLE001 - a failure is an answer
        traceback.print_exc()
        said = refusal_of(error)
    with os.fdopen(stdout, "wb") as file:
        file.write(msgspec.json.encode(said))
    return 0


def fetch(asked: FetchRows) -> RowsFetched:
    """Write the rows, and say how many there are."""
    alarm = _Alarm(asked.still_seconds)
    alarm.set()
    builder = _builder(asked)
    count = size = 0
    left_out: dict[str, None] = {}
    with Path(asked.rows).open("wb") as file:
        for table in _tables(builder, asked.split):
            alarm.set()
            check_free(Path(asked.scratch), asked.reserve)
            kept = [name for name in table.column_names if _is_kept(table.schema.field(name).type)]
            left_out.update(dict.fromkeys(name for name in table.column_names if name not in kept))
            for row in _rows(table, kept):
                count += 1
                size += _write(file, row)
                if size > asked.limit:
                    raise _Refused(
                        _unusable(f"The split is larger than {asked.limit} bytes as JSON lines, which are accepted.")
                    )
    if not count:
        raise _Refused(_unusable(f"The split {asked.split!r} has no rows."))
    return RowsFetched(rows=count, left_out=tuple(left_out))


class _Alarm:
    """Has the system end this process where nothing comes any more, or nobody is there to take it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._parent = os.getppid()

    def set(self) -> None:
        """Begin to wait again."""
        if os.getppid() != self._parent:
            raise RuntimeError("The server is gone.")
        signal.setitimer(signal.ITIMER_REAL, self._seconds)


def _prepare_process(scratch: Path) -> None:
    """What the libraries read from the environment before they are imported."""
    os.nice(_NICE)
    go_first()
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE"):
        os.environ[name] = str(scratch / name.lower())
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    for name in ("USE_TORCH", "USE_TF", "USE_JAX"):
        os.environ[name] = "0"  # rows need none of them


def _builder(asked: FetchRows) -> "DatasetBuilder":
    """What can read the split, once it is sure that its rows come from the dataset's own files."""
    with importing():
        import datasets
        from datasets import config, load_dataset_builder

    config.STREAMING_READ_MAX_RETRIES = config.STREAMING_OPEN_MAX_RETRIES = _RETRIES
    datasets.logging.set_verbosity_error()
    _check_card(asked)
    try:
        # By this spelling a folder of that name in the current directory is not meant.
        builder = load_dataset_builder(f"hf://datasets/{asked.repo}", asked.config, revision=asked.commit)
    except (
        ValueError
    ) as error:  # an unknown config, or none where there are several: the message lists those that there are
        if isinstance(error, datasets.exceptions.DatasetsError) or "onfig" not in str(error):
            raise
        words = ". ".join(line.rstrip(".") for line in str(error).splitlines()[:2])
        example = f"hf://{asked.repo}/CONFIG"
        raise _Refused(_unusable(f"{words}. A config is named after the dataset, as in {example}.")) from error
    files = builder.config.data_files or {}
    kind = next(part for part in type(builder).__mro__ if part.__module__.startswith("datasets.packaged_modules."))
    name = kind.__module__.rpartition(".")[2]
    if name not in _READ:
        raise _Refused(_unusable(f"Its files are read as {name!r}; taken are those of {', '.join(sorted(_READ))}."))
    if asked.split not in files:
        there = ", ".join(repr(str(name)) for name in files) or "none"
        raise _Refused(_unusable(f"There is no split {asked.split!r}; there are {there}."))
    own = f"hf://datasets/{asked.repo}@{asked.commit}/"
    for file in (file for split in files.values() for file in split):
        if not str(file).startswith(own) or _FOREIGN.search(str(file).removeprefix(own)):
            raise _Refused(_foreign(str(file)))
    return builder


def _check_card(asked: FetchRows) -> None:
    """Refuse a dataset whose card says that its rows lie elsewhere: on this machine, or behind some other address."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError
    from yaml import YAMLError

    for name in ("README.md", ".huggingface.yaml"):
        try:
            path = hf_hub_download(asked.repo, name, repo_type="dataset", revision=asked.commit)
        except EntryNotFoundError:
            continue
        text = Path(path).read_text(encoding="utf-8")
        try:
            card = DatasetCard(text if name == "README.md" else f"---\n{text}\n---\n")
            configs = MetadataConfigs.from_dataset_card_data(card.data)
        except (YAMLError, ValueError) as error:
            raise _Refused(_unusable(f"What its {name} says of it cannot be read: {message_of(error)}")) from error
        for said in configs.values():
            for place in _texts([said.get("data_files"), said.get("data_dir")]):
                if _FOREIGN.search(place):
                    raise _Refused(_foreign(place))


def _texts(said: object) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict):
        yield from _texts(list(said.values()))
    elif isinstance(said, list | tuple):
        for part in said:
            yield from _texts(part)


def _foreign(place: str) -> RowsRefused:
    return _unusable(f"It takes rows from outside its repository, which no commit pins: {place[:200]!r}.")


def _tables(builder: "DatasetBuilder", split: str) -> "Iterator[pa.Table]":
    """The rows, some at a time."""
    yield from builder.as_streaming_dataset(split).with_format("arrow").iter(batch_size=_ROWS_AT_ONCE)


def _is_kept(kind: "pa.DataType") -> bool:
    """Whether a column can be what somebody trains on: a text or a number, or a structure in which texts stand."""
    import pyarrow as pa

    return not pa.types.is_nested(kind) or ("text" in (leaves := set(_leaves(kind))) and "bytes" not in leaves)


def _leaves(kind: "pa.DataType") -> Iterator[str]:
    import pyarrow as pa

    if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
        yield "text" if isinstance(kind, pa.JsonType) else "other"
    elif pa.types.is_nested(kind):
        for index in range(kind.num_fields):
            yield from _leaves(kind.field(index).type)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield "text"
    elif pa.types.is_null(kind):
        yield "text"  # a column in which nothing stands yet
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        yield "bytes"
    else:
        yield "other"


def _rows(table: "pa.Table", kept: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table, without what is null: a field that only other rows have is null in Arrow."""
    kinds = {name: table.schema.field(name).type for name in kept}
    for row in table.select(kept).to_pylist():
        values = {name: _plain(value, kinds[name]) for name, value in row.items()}
        yield {name: value for name, value in values.items() if value is not None}


def _plain(value: Any, kind: "pa.DataType") -> Any:
    """A value as JSON has it: what is kept as written JSON is read, bytes are text if they can be.

    A short float keeps its own digits.
    """
    import numpy as np
    import pyarrow as pa

    if isinstance(value, list):
        if pa.types.is_map(kind):
            return {str(key): _plain(item, kind.item_type) for key, item in value}
        return [_plain(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        fields = {name: _plain(item, kind.field(name).type) for name, item in value.items()}
        return {name: item for name, item in fields.items() if item is not None}
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    if isinstance(value, float) and (pa.types.is_float32(kind) or pa.types.is_float16(kind)):
        return float(str(np.float32(value) if pa.types.is_float32(kind) else np.float16(value)))
    if isinstance(value, str) and isinstance(kind, pa.JsonType):
        return _read(msgspec.json.decode(value))
    return value


def _read(value: Any) -> Any:
    """What was read of written JSON, without what is null there."""
    if isinstance(value, dict):
        return {name: _read(item) for name, item in value.items() if item is not None}
    return [_read(item) for item in value] if isinstance(value, list) else value


def _write(file: BinaryIO, row: dict[str, Any]) -> int:
    try:
        line = msgspec.json.encode(row, enc_hook=str) + b"\n"
    except (ValueError, UnicodeError) as error:
        raise _Refused(_unusable(f"A row cannot be written as JSON: {error}.")) from error
    return file.write(line)


def _unusable(message: str) -> RowsRefused:
    return RowsRefused(kind="unusable", message=message)


def refusal_of(error: BaseException) -> RowsRefused:
    """What an exception means to whoever asked for the rows."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    found: BaseException | None = error
    while found is not None:
        if isinstance(found, _Refused):
            return found.refusal
        if isinstance(found, HfHubHTTPError) and found.response is not None:
            status = found.response.status_code
            said = f"the hub answered {status}" + (f" ({found.server_message})" if found.server_message else "")
            return RowsRefused(kind="access" if status in _NO_ACCESS else "unreachable", message=said)
        # Its client's own HTTP library, which is another one from release to release.
        if type(found).__module__.partition(".")[0] in {"httpx", "httpcore", "aiohttp", "requests"} or isinstance(
            found, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError | TimeoutError
        ):
            return RowsRefused(kind="unreachable", message=message_of(found))
        if isinstance(found, OSError) and found.errno in NO_ROOM:
            return RowsRefused(kind="full", message=message_of(found))
        found = found.__cause__ or found.__context__
    return _unusable(message_of(error))


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # no library's teardown may hold up the server
