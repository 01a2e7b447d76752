"""The dataset that a training names: one that was uploaded, a file by its path, or one of the hub."""

import asyncio
import contextlib
import os
import stat
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from modelforge.admission.context import Admission
from modelforge.datasets.hub import SCHEME, SPELLING, HubDataset, commit_of, fetch_rows, parse_name
from modelforge.datasets.validation.columns import Source
from modelforge.datasets.validation.process import check_columns_given, check_dataset, check_encoding_given
from modelforge.errors import BadInput, NotFound
from modelforge.fields import check_label
from trainer_entry import wire


async def resolve_dataset(
    admission: Admission, name: str, columns: Mapping[str, Source] | None, encoding: str | None = None
) -> tuple[wire.DatasetFile, Path | None]:
    """The dataset of a name, checked, and the staged file of its records where they had to be made or fetched.

    A staged file is a temporary one, and the dataset's path until it is stored: who asked stores or removes it. There
    is none of an uploaded dataset, nor of a file by its path that is plain JSON lines itself.

    Raises:
        NotFound: there is no such dataset.
        BadInput: it cannot be trained on, or must not be read.
        StorageFull: there is no room for what comes from the hub.
        TooMuchWork: what comes from the hub takes too much time or memory.
    """
    if not name.startswith(SCHEME) and not Path(name).is_absolute():
        return _uploaded(admission, name, columns, encoding), None
    check_label(name, "dataset")
    asked = parse_name(name) if name.startswith(SCHEME) else None
    check_columns_given(columns or {})
    if encoding is not None and asked is not None:
        raise BadInput(
            "encoding is for a file by its path",
            f"{name} is of the hub, which gives its rows as texts.",
            field="encoding",
        )
    encoding = None if encoding is None else check_encoding_given(encoding)
    staged = admission.layout.temporary / f"{uuid.uuid4().hex}.records"
    async with _removed_on_error(staged):
        if asked is not None:
            return await _fetched(admission, asked, columns, staged), staged
        dataset = await _named_by_path(admission, name, columns, encoding, staged)
    return dataset, None if dataset.records_sha256 is None else staged


@contextlib.asynccontextmanager
async def _removed_on_error(staged: Path) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await asyncio.to_thread(staged.unlink, missing_ok=True)
        raise


def _uploaded(
    admission: Admission, name: str, columns: Mapping[str, Source] | None, encoding: str | None
) -> wire.DatasetFile:
    summary = admission.read_models.datasets.get(name)
    if summary is None:
        raise NotFound(
            "No such dataset",
            f"dataset: {name!r} was not uploaded; GET /api/datasets lists those that were. "
            f"A file on the server's disk is named by its absolute path, a hub's dataset by {SPELLING}.",
        )
    if columns is not None:
        raise BadInput(
            "columns is for a file by its path, and for a dataset of the hub",
            f"{name} was uploaded: send its columns with it, as the part 'columns' of the upload.",
            field="columns",
        )
    if encoding is not None:
        raise BadInput(
            "encoding is for a file by its path",
            f"{name} was uploaded: send its encoding with it, as the part 'encoding' of the upload.",
            field="encoding",
        )
    return wire.DatasetFile(
        filename=name,
        path=str(admission.layout.dataset(summary.content)),
        sha256=summary.sha256,
        format=summary.format,
        num_examples=summary.num_examples,
        records_sha256=summary.records_sha256,
        has_tools=summary.has_tools,
        revision=summary.revision,
    )


async def _named_by_path(
    admission: Admission, name: str, columns: Mapping[str, Source] | None, encoding: str | None, staged: Path
) -> wire.DatasetFile:
    roots = admission.settings.dataset_roots
    path = await asyncio.to_thread(allowed_file, name, roots)
    held = await asyncio.to_thread(_open_allowed, path, roots)
    before = os.fstat(held)
    try:
        found = await check_dataset(
            Path(f"/proc/{os.getpid()}/fd/{held}"),  # the same file, whatever becomes of its name meanwhile
            "dataset",
            filename=path.name,
            records=staged,
            limit=admission.settings.max_upload_bytes,
            columns=columns,
            encoding=encoding,
            reserve=admission.settings.reserve_disk_bytes,
        )
    except RuntimeError as error:
        if (after := os.fstat(held)).st_size != before.st_size or after.st_mtime_ns != before.st_mtime_ns:
            raise _changed(path) from error
        raise
    finally:
        os.close(held)
    return wire.DatasetFile(
        filename=path.name,
        path=str(path if found.records_sha256 is None else staged),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
        records_sha256=found.records_sha256,
        has_tools=found.has_tools,
        origin=name,
        columns=None if columns is None else dict(columns),
        encoding=encoding,
    )


async def _fetched(
    admission: Admission, asked: HubDataset, columns: Mapping[str, Source] | None, staged: Path
) -> wire.DatasetFile:
    """A hub's dataset at the commit that its revision stands for: its rows, or what the columns make of them."""
    commit = await commit_of(asked)
    rows, limit = staged.with_suffix(".rows"), admission.settings.max_upload_bytes
    reserve = admission.settings.reserve_disk_bytes
    filename = f"{asked.repo}:{asked.split}@{commit[:7]}"
    try:
        async with admission.fetches:
            await fetch_rows(asked, commit, rows, limit, reserve)
        found = await check_dataset(
            rows, "dataset", filename=filename, records=staged, limit=limit, columns=columns, reserve=reserve
        )
        if found.records_sha256 is None:
            await asyncio.to_thread(rows.rename, staged)
    finally:
        await asyncio.to_thread(rows.unlink, missing_ok=True)
    return wire.DatasetFile(
        filename=filename,
        path=str(staged),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
        records_sha256=found.records_sha256 or found.sha256,
        has_tools=found.has_tools,
        source=asked.at(commit),
        columns=None if columns is None else dict(columns),
    )


def _open_allowed(path: Path, roots: tuple[Path, ...]) -> int:
    """Open a file that may be read, though its name may lead elsewhere by now; the descriptor is the caller's.

    Raises:
        BadInput: it does.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _changed(path) from error
    here = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - where it lies, and not where that leads
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not any(here.is_relative_to(root) for root in roots):
        os.close(descriptor)
        raise _changed(path)
    return descriptor


def _changed(path: Path) -> BadInput:
    return BadInput(
        "The dataset changed while it was read", f"{path}: leave it alone meanwhile, or upload it.", field="dataset"
    )


def allowed_file(name: str, roots: tuple[Path, ...]) -> Path:
    """The file that a path names.

    Raises:
        BadInput: it is no regular file under the dataset roots.
        NotFound: it is not there.
    """
    try:
        path = Path(name).resolve()
        inside = any(path.is_relative_to(root) for root in roots)
        is_file, exists = path.is_file(), path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput("The dataset's path cannot be read", f"{name}: {error}", field="dataset") from error
    if not inside:
        raise BadInput(
            "The dataset lies outside the dataset roots",
            f"{name} is in none of {', '.join(map(str, roots))}; upload it, "
            "or start the server with --dataset-root to allow its folder.",
            field="dataset",
        )
    if not exists:
        raise NotFound("No such dataset", f"dataset: there is no file {name}.")
    if not is_file:
        raise BadInput("The dataset is no regular file", f"{name} is a folder or a device.", field="dataset")
    return path
