"""Puts checked files where their content belongs, for as long as somebody needs them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from aiohttp import web

from modelforge.dataset_check.verdict import ValidDataset
from modelforge.errors import ForgeError, LogUnusable
from modelforge.http.keys import HANDLER, LAYOUT
from modelforge.layout import Layout

KEEPING = web.AppKey("keeping", asyncio.Lock)
"""Held from when a content is put in its place until it is recorded who needs it."""


def places_of(found: ValidDataset, upload: Path, records: Path, layout: Layout) -> dict[Path, Path]:
    """Where the files of an upload belong: the records, and the upload itself where it is another file."""
    if found.records_sha256 is None:
        return {upload: layout.dataset(found.sha256)}
    return {records: layout.dataset(found.records_sha256), upload: layout.upload(found.sha256)}


@contextlib.asynccontextmanager
async def kept(app: web.Application, places: Mapping[Path, Path]) -> AsyncIterator[None]:
    """Put files in their places while it is recorded who needs them; what is refused leaves nothing there.

    The same bytes are there only once, and the same bytes, sent twice at once, are not taken away from the one that
    was recorded.
    """
    if not places:
        yield
        return
    async with app[KEEPING]:
        await asyncio.to_thread(_place, places, app[LAYOUT].datasets)
        try:
            yield
        except LogUnusable:
            raise  # whether it was recorded, only the next start can tell
        except ForgeError:
            for place in places.values():
                if not app[HANDLER].state.needed.get(place.name):
                    await asyncio.to_thread(place.unlink)
            raise


def _place(places: Mapping[Path, Path], folder: Path) -> None:
    for path, place in places.items():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(place)
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
