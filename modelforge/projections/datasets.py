"""The datasets: for each name, the revision that it stands for now."""

from msgspec import Struct

from modelforge.domain.dataset import DatasetUploaded
from modelforge.projections.jobs import iso
from modelforge.projections.models import megabytes
from trainer_entry import wire


class DatasetSummary(Struct, frozen=True, kw_only=True):
    """An uploaded dataset; `size_mb` counts 10^6 bytes."""

    filename: str
    num_examples: int
    size_mb: float
    uploaded_at: str
    format: wire.DatasetFormat
    sha256: str
    revision: int


def summary_of(event: DatasetUploaded, at: int) -> DatasetSummary:
    """The dataset as its upload tells it."""
    return DatasetSummary(
        filename=event.filename,
        num_examples=event.num_examples,
        size_mb=megabytes(event.size_bytes),
        uploaded_at=iso(at),
        format=event.format,
        sha256=event.sha256,
        revision=event.revision,
    )
