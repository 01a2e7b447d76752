"""Records that were tokenized before, by the same code, for the same model and settings: kept as files, and read again.

An entry is a folder that is named for everything that decides what is in it, and holds the rows as Arrow files with
their hashes. It is there whole or not at all, and one whose bytes are others is as none. What is kept has a bound: who
was not used for the longest time goes first. A cache that cannot be written costs a training nothing.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trainer_entry.data.examples import Examples
from trainer_entry.runtime import distributed
from trainer_entry.runtime.disk import sync_tree
from trainer_entry.runtime.stdout import note
from trainer_entry.wire.attempt_files import TokenizedEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from datasets import Dataset

    from trainer_entry.wire import JobSpec, TrainingParameters

WORTHWHILE_BYTES = 1 << 20
"""Files of fewer bytes together are tokenized anew: that takes no longer than to find out what was kept."""
MOST_BYTES = 4 << 30
"""What all entries may have together."""
_SPARED_BYTES = 2 << 30
"""What stays free on the disk beside them."""
_ABANDONED_SECONDS = 3600.0
"""The age at which what was never finished is taken for left behind."""
_FORMAT = 2
_LIBRARIES = ("tokenizers", "transformers", "datasets", "pyarrow", "jinja2", "trl")
_CLOCK = "strftime_now"
"""What a chat template asks for the day by: tomorrow it makes other tokens."""
_ENTRY, _PARTIAL = "entry.json", ".partial-"


class _Entry(TokenizedEntry, frozen=True, kw_only=True, gc=False):
    """All that an entry says of itself. `files`: the SHA-256 of each, by its name."""

    files: dict[str, str]
    tokens: int
    dropped: int
    cut: int


def key_of(job: JobSpec, parameters: TrainingParameters, length: int, tokenizer: Any, config: Any = None) -> str | None:
    """A name for all that decides what the records of a training become; None where not all of it can be told.

    That is the records and which of them are held out, the task, the room and how it is kept, the tokenizer with all
    its settings and its template, the libraries, and our own code. `config`: the model's, where the task reads it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or _CLOCK in json.dumps(getattr(tokenizer, "chat_template", None), default=str):
        return None
    if sum(os.path.getsize(file.path) for file in job.files) < WORTHWHILE_BYTES:  # noqa: PTH202
        return None
    digest = hashlib.sha256(f"{_FORMAT} {length}\n".encode())
    for part in (
        (job.dataset, job.validation, job.task, job.strategy),
        (parameters.eval_split, parameters.seed, parameters.truncation, parameters.packing),
        parameters.doc_stride,
        [version(library) for library in _LIBRARIES],
        _settings_of(tokenizer),
        backend.to_str(),
        None if config is None else config.to_json_string(),
    ):
        digest.update(msgspec.json.encode(part) + b"\n")
    for path in _sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _settings_of(tokenizer: Any) -> list[str]:
    """What a tokenizer has beside its backend, in words that are the same for the same settings."""
    names = (
        "chat_template",
        "special_tokens_map",
        "init_kwargs",
        "model_max_length",
        "padding_side",
        "truncation_side",
    )
    found = [json.dumps(getattr(tokenizer, name, None), sort_keys=True, default=str) for name in names]
    return [type(tokenizer).__qualname__, *found]


def _sources() -> Iterable[Path]:
    """Our own code that makes tokens of records."""
    root = Path(__file__).parents[1]
    return sorted(path for room in ("data", "tasks", "wire") for path in (root / room).glob("*.py"))


def remembered(
    folder: str | None, key: Callable[[], str | None], make: Callable[[], Examples], records: Iterable[str] = ()
) -> Examples:
    """The examples that are kept in a folder under a key; else those that are made, which are kept from now on.

    `records`: the SHA-256 of each file that they are made of: an entry goes with them.
    """
    name = None if folder is None else key()
    if folder is None or name is None:
        return make()
    place = Path(folder) / name
    try:
        kept = _read(place)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        kept = None
        if place.exists():
            note(f"What was tokenized before cannot be used: {error}")
            shutil.rmtree(place, ignore_errors=True)
    if kept is not None:
        note(f"The records were tokenized before: {kept.dropped} were left out then, and {kept.cut} examples cut.")
        return kept
    examples = make()
    if examples.measure is None and distributed.rank() == 0:
        _keep(Path(folder), place, examples, tuple(records))
    return examples


def _read(place: Path) -> Examples | None:
    """What an entry has; None where there is none.

    Raises:
        OSError, ValueError, DecodeError: it is not what was written.
    """
    if not (place / _ENTRY).exists():
        return None
    entry = msgspec.json.decode((place / _ENTRY).read_bytes(), type=_Entry)
    for name, sha256 in entry.files.items():
        if _sha256(place / name) != sha256:
            raise ValueError(f"{name} has other bytes than were written")
    os.utime(place)  # it was used now
    evaluation = "evaluation.arrow"
    return Examples(
        train=_rows(place / "train.arrow"),
        evaluation=_rows(place / evaluation) if evaluation in entry.files else None,
        tokens=entry.tokens,
        dropped=entry.dropped,
        cut=entry.cut,
    )


def _rows(path: Path) -> Dataset:
    import pyarrow as pa  # type: ignore[import-untyped]
    from datasets import Dataset

    with pa.memory_map(str(path)) as file:
        return Dataset(pa.ipc.open_file(file).read_all())


def _keep(folder: Path, place: Path, examples: Examples, records: tuple[str, ...]) -> None:
    """Make an entry, if there is room; others go for it."""
    partial = folder / f"{_PARTIAL}{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        size = sum(rows.data.nbytes for rows in (examples.train, examples.evaluation) if rows is not None)
        if size > MOST_BYTES:
            return  # before others went for what is not kept
        _make_room(folder, size)
        if shutil.disk_usage(folder).free < size + _SPARED_BYTES:
            return
        partial.mkdir(mode=0o700)
        files = {"train.arrow": _write(partial / "train.arrow", examples.train)}
        if examples.evaluation is not None:
            files["evaluation.arrow"] = _write(partial / "evaluation.arrow", examples.evaluation)
        entry = _Entry(records=records, files=files, tokens=examples.tokens, dropped=examples.dropped, cut=examples.cut)
        (partial / _ENTRY).write_bytes(msgspec.json.encode(entry))
        sync_tree(partial)
        partial.rename(place)
    except OSError as error:  # another process was first, or there is no room
        note(f"What was tokenized is not kept: {error}")
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, rows: Dataset) -> str:
    import pyarrow as pa

    table = rows.data.table
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _make_room(folder: Path, size: int) -> None:
    """Take away what was used the longest time ago, until so many bytes more are within the bound."""
    entries: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        used = path.stat().st_mtime
        if path.name.startswith(_PARTIAL):
            if time.time() - used > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
        else:
            entries.append((used, sum(file.stat().st_size for file in path.iterdir()), path))
    most = sum(bytes_ for _, bytes_, _ in entries) + size
    for _, bytes_, path in sorted(entries):
        if most <= MOST_BYTES:
            return
        shutil.rmtree(path, ignore_errors=True)
        most -= bytes_
