"""The dataset that a training names: one that was uploaded, or a file by its path."""

import asyncio
from pathlib import Path

from aiohttp import web

from modelforge.dataset_check import check_columns_given, check_dataset
from modelforge.errors import BadInput, NotFound
from modelforge.http.keys import LAYOUT, PROJECTOR, SETTINGS
from trainer_entry import wire


async def named_dataset(
    request: web.Request, name: str, columns: dict[str, str] | None, records: Path
) -> wire.DatasetFile:
    """An uploaded dataset by its filename, or a file by its path, which is read and checked now.

    `records`: where the records of a file that is no plain JSON lines go; what is answered then has this path.

    Raises:
        NotFound: there is none.
        BadInput: it cannot be trained on, or must not be read.
    """
    if not Path(name).is_absolute():
        summary = request.app[PROJECTOR].read_models.datasets.get(name)
        if summary is None:
            raise NotFound(
                "No such dataset",
                f"dataset: {name!r} was not uploaded; GET /api/datasets lists those that were. "
                "A file on the server's disk is named by its absolute path.",
            )
        if columns is not None:
            raise BadInput(
                "columns is for a file by its path",
                f"{name} was uploaded: send its columns with it, as the part 'columns' of the upload.",
                field="columns",
            )
        return wire.DatasetFile(
            filename=name,
            path=str(request.app[LAYOUT].dataset(summary.records_sha256 or summary.sha256)),
            sha256=summary.sha256,
            format=summary.format,
            num_examples=summary.num_examples,
            records_sha256=summary.records_sha256,
            revision=summary.revision,
        )
    check_columns_given(columns or {})
    path = await asyncio.to_thread(allowed_file, name, request.app[SETTINGS].dataset_roots)
    found = await check_dataset(
        path,
        "dataset",
        filename=path.name,
        records=records,
        limit=request.app[SETTINGS].max_upload_bytes,
        columns=columns,
    )
    return wire.DatasetFile(
        filename=path.name,
        path=str(path if found.records_sha256 is None else records),
        sha256=found.sha256,
        format=found.format,
        num_examples=found.num_examples,
        records_sha256=found.records_sha256,
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
