"""The datasets that were uploaded."""

from aiohttp import web
from msgspec import Struct

from modelforge.http.keys import PROJECTOR
from modelforge.http.messages import answer
from modelforge.projections.datasets import DatasetSummary


class DatasetList(Struct, frozen=True, kw_only=True):
    """The uploaded datasets."""

    datasets: list[DatasetSummary]


async def list_datasets(request: web.Request) -> web.Response:
    """List the uploaded datasets."""
    return answer(DatasetList(datasets=[*request.app[PROJECTOR].read_models.datasets.values()]))
