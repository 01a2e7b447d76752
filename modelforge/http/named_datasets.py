"""The dataset that a training names: one that was uploaded, a file by its path, or one of the hub."""

import asyncio
from pathlib import Path

from aiohttp import web

from modelforge.dataset_check.process import check_columns_given, check_dataset
from modelforge.errors import BadInput, NotFound
from modelforge.http.keys import LAYOUT, PROJECTOR, SETTINGS
from modelforge.http.waiting import while_client_waits
from modelforge.hub_dataset import SCHEME, SPELLING, HubDataset, commit_of, fetch_rows, named
from trainer_entry import wire

FETCHING = web.AppKey("fetching", asyncio.Semaphore)
"""How many datasets are fetched from the hub at once; others wait for their turn."""
FETCHED_AT_ONCE = 2


async def named_dataset(
    request: web.Request, name: str, columns: dict[str, str] | None, records: Path
) -> wire.DatasetFile:
    """An uploaded dataset by its filename, or a file by its path or a hub's dataset, which is read and checked now.

    `records`: where the records go of what is no file of plain JSON lines; what is answered then has this path.

    Raises:
        NotFound: there is none.
        BadInput: it cannot be trained on, or must not be read.
        StorageFull: there is no room for what comes from the hub.
        TooMuchWork: what comes from the hub takes too much time or memory.
    """
    if name.startswith(SCHEME):
        asked = named(name)
        check_columns_given(columns or {})
        commit = await commit_of(asked)
        return await while_client_waits(request, _fetched(request, asked, commit, columns, records))
    if not Path(name).is_absolute():
        summary = request.app[PROJECTOR].read_models.datasets.get(name)
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
        return wire.DatasetFile(
            filename=name,
            path=str(request.app[LAYOUT].dataset(summary.content)),
            sha256=summary.sha256,
            format=summary.format,
            num_examples=summary.num_examples,
            records_sha256=summary.records_sha256,
            revision=summary.revision,
        )
    check_columns_given(columns or {})
    path = await asyncio.to_thread(allowed_file, name, request.app[SETTINGS].dataset_roots)
    checking = check_dataset(
        path,
        "dataset",
        filename=path.name,
        records=records,
        limit=request.app[SETTINGS].max_upload_bytes,
        columns=columns,
    )
    found = await while_client_waits(request, checking)
    return wire.DatasetFile(
        filename=path.name,
        path=str(path if found.records_sha256 is None else records),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
        records_sha256=found.records_sha256,
    )


async def _fetched(
    request: web.Request, asked: HubDataset, commit: str, columns: dict[str, str] | None, records: Path
) -> wire.DatasetFile:
    """A hub's dataset at a commit: its rows, or what the columns make of them, are left as `records`."""
    rows, limit = records.with_suffix(".rows"), request.app[SETTINGS].max_upload_bytes
    filename = f"{asked.repo}:{asked.split}@{commit[:7]}"
    try:
        async with request.app[FETCHING]:
            await fetch_rows(asked, commit, rows, limit)
        found = await check_dataset(rows, "dataset", filename=filename, records=records, limit=limit, columns=columns)
        if found.records_sha256 is None:
            await asyncio.to_thread(rows.rename, records)
    finally:
        await asyncio.to_thread(rows.unlink, missing_ok=True)
    return wire.DatasetFile(
        filename=filename,
        path=str(records),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
        records_sha256=found.records_sha256 or found.sha256,
        source=asked.at(commit),
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
