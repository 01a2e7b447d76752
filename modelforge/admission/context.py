"""The settings and read models in which admission finds what a request names."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from modelforge.command_handler import CommandHandler
from modelforge.datasets.preview_workers import PreviewWorkers
from modelforge.layout import Layout
from modelforge.machine.cluster import Partitions
from modelforge.projections.indexes import Indexes
from modelforge.projections.read_models import ReadModels
from modelforge.settings import Settings

FETCHES_AT_ONCE = 2


class Admission(Struct, frozen=True, kw_only=True):
    """The settings, the data directory, and what the log says of jobs, models and datasets.

    `fetches`: how many datasets may be fetched from the hub at once; others wait for their turn. `workers`: those that
    read datasets as a model does, in processes of their own. `spare_bytes`: the memory that comes free when a job
    starts; to be asked in a thread. `partitions`: those of the cluster that trainings run on; None where there is none.
    """

    settings: Settings
    layout: Layout
    indexes: Indexes
    handler: CommandHandler
    fetches: asyncio.Semaphore
    workers: PreviewWorkers
    spare_bytes: Callable[[], int]
    partitions: Partitions | None = None

    @property
    def read_models(self) -> ReadModels:
        """What the log says of jobs, models and datasets."""
        return self.indexes.read_models

    @property
    def model_roots(self) -> tuple[Path, ...]:
        """The folders that models may be read from, our own trained models among them."""
        return (*self.settings.model_roots, self.layout.models)
