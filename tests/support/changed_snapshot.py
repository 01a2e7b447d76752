"""A snapshot that is whole, and says something else than the log."""

from modelforge.event_log.view import log_view
from modelforge.layout import Layout
from modelforge.projections.snapshots import Snapshots, load


def change_snapshot(layout: Layout) -> None:
    """Have the snapshot of a data directory count a file that no record names."""
    with log_view(layout) as reader:
        kept = load(layout.snapshot, reader)
    assert kept is not None
    kept.state.references["0.jsonl"] = 1
    Snapshots(layout.snapshot, kept).write_at_once()
