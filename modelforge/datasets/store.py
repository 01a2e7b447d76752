"""The folder of datasets: checked files stored by their content, for as long as something refers to them."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

from modelforge.command_handler import CommandHandler
from modelforge.datasets.validation.protocol import ValidDataset
from modelforge.errors import ForgeError, LogUnusable
from modelforge.layout import Layout
from modelforge.owner_files import sync_folder


class DatasetStore:
    """Stores files. `lock`: held from when a file is put in its place until it is recorded what refers to it."""

    def __init__(self, layout: Layout, handler: CommandHandler) -> None:
        self.lock = asyncio.Lock()
        self._layout = layout
        self._handler = handler

    def places_of(self, found: ValidDataset, upload: Path, records: Path) -> dict[Path, Path]:
        """Where the files of an upload belong: the records, and the upload itself where it is another file."""
        if found.records_sha256 is None:
            return {upload: self._layout.dataset(found.sha256)}
        return {records: self._layout.dataset(found.records_sha256), upload: self._layout.upload(found.sha256)}

    def unreferenced(self, names: Iterable[str]) -> list[str]:
        """The files among these that nothing refers to."""
        return [name for name in names if not self._handler.state.references.get(name)]

    @contextlib.asynccontextmanager
    async def stored(self, places: Mapping[Path, Path]) -> AsyncIterator[None]:
        """Put files in their places while it is recorded what refers to them; what is refused leaves nothing there.

        The same bytes are stored once. Of the same bytes sent twice at once, a refusal takes away none that the other
        upload has recorded.
        """
        if not places:
            yield
            return
        async with self.lock:
            await asyncio.to_thread(_place, places, self._layout.datasets)
            try:
                yield
            except LogUnusable:
                raise  # whether it was recorded, only the next start finds out
            except ForgeError:
                for place in places.values():
                    if self.unreferenced([place.name]):
                        await asyncio.to_thread(place.unlink)
                raise


def _place(places: Mapping[Path, Path], folder: Path) -> None:
    for path, place in places.items():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        path.rename(place)
    sync_folder(folder)
