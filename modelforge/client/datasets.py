"""Datasets: sent, listed, looked at, fetched, deleted."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from modelforge.client.calls import Calls, given, takes_of
from modelforge.connection import path_of
from modelforge.http.dataset_previews import PreviewQuery, StatisticsQuery
from modelforge.http.datasets import DatasetDeleted, DatasetList
from modelforge.http.uploads import Uploaded
from modelforge.projections.datasets import DatasetDetails
from trainer_entry import wire


class DatasetCalls(Calls):
    """What is asked of datasets."""

    async def upload_dataset(
        self,
        file: Path | str,
        *,
        task: wire.Task | None = None,
        strategy: wire.Strategy | None = None,
        columns: Mapping[str, str | Sequence[str]] | None = None,
        encoding: str | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> Uploaded:
        """Send a file as a dataset, which is named as the file is.

        `task`, `strategy`: those that it must serve. `columns`: which column is read as which field. `on_sent` hears
        how many bytes went with each part.

        Raises:
            RequestRefused: it cannot be trained on; `validation` lists its errors by line.
            OSError: the file cannot be read.
        """
        fields = {
            "task": task,
            "strategy": strategy,
            "columns": None if columns is None else msgspec.json.encode(columns).decode(),
            "encoding": encoding,
        }
        said = {name: value for name, value in fields.items() if value is not None}
        return await self._connection.upload(Path(file), Uploaded, on_sent=on_sent, key=self._key, **said)

    async def list_datasets(self, *, limit: int | None = None, after: str | None = None) -> DatasetList:
        """The datasets: all, or a page. `after`: the name of the last one of the page before."""
        return await self._get(DatasetList, "datasets", limit=limit, after=after)

    async def get_dataset(self, filename: str, *, revision: int | None = None) -> DatasetDetails:
        """One dataset, with what its check found, and what it can be trained on for."""
        return await self._get(DatasetDetails, "datasets", filename, revision=revision)

    async def delete_dataset(self, filename: str) -> DatasetDeleted:
        """Delete a dataset with all its revisions; its files are gone when this returns."""
        return await self._delete(DatasetDeleted, "datasets", filename)

    async def download_dataset(self, filename: str, to: Path | str, *, revision: int | None = None) -> None:
        """Write a dataset to a file, as it was uploaded.

        Raises:
            RequestRefused: there is none; the file is not made then.
            OSError: the file cannot be written.
        """
        await self._connection.save(path_of("datasets", filename, "download", revision=revision), Path(to))

    @takes_of(PreviewQuery)
    async def preview_dataset(self, filename: str, query: PreviewQuery) -> wire.DatasetPreview:
        """The first records of a dataset; with a `model_name`, as that model reads them, token by token."""
        return await self._get(wire.DatasetPreview, "datasets", filename, "preview", **given(query))

    @takes_of(StatisticsQuery)
    async def measure_dataset(self, filename: str, query: StatisticsQuery) -> wire.DatasetStatistics:
        """How long the records are in the tokens of `model_name`, what is cut off, and what teaches nothing."""
        return await self._get(wire.DatasetStatistics, "datasets", filename, "statistics", **given(query))
