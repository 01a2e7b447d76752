"""What a snapshot has that a release wrote is what its records lead to today; or `FOLD` was raised.

`history.jsonl` is a log with a record of each event, and `snapshot.sqlite` the snapshot of its first records that was
written when `FOLD` had the number in it. Both are as some release wrote them.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import msgspec
import pytest
from support.golden_lines import Line, tags
from support.scenario import NOON, records_of

from modelforge.domain.messages import Event, Message, decode
from modelforge.domain.state import evolve
from modelforge.projections.folding import FOLD, Rebuilt, nothing
from modelforge.projections.snapshot_file import SnapshotReader
from modelforge.projections.snapshots import Snapshots, load, pieces_of

if TYPE_CHECKING:
    from modelforge.event_log.sqlite import LogReader

HISTORY, SNAPSHOT = (Path(__file__).with_name(name) for name in ("history.jsonl", "snapshot.sqlite"))
RECORD = "PYTHONPATH=tests python tests/golden/test_golden_fold.py"
RAISE = (
    "The records of older logs lead to something else than what snapshots have of them: raise FOLD in "
    f"modelforge/projections/folding.py, and record it anew by `{RECORD}`."
)


class AnyLog:
    """A log whose last record has whatever digest a snapshot says."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def digest_at(self, _position: int) -> str:
        return self._digest


def messages() -> list[Message]:
    lines = msgspec.json.Decoder(Line).decode_lines(HISTORY.read_bytes())
    return [decode(line.kind, bytes(line.data)) for line in lines]


def folded(count: int) -> Rebuilt:
    rebuilt = nothing()
    for record in records_of(*messages()[:count]):
        at = NOON + record.position * 60_000_000
        placed = msgspec.structs.replace(record, at=at)
        evolve(rebuilt.state, placed)
        rebuilt.read_models.apply(placed)
    return rebuilt


def recorded() -> Rebuilt:
    reader = SnapshotReader(SNAPSHOT)
    try:
        head = reader.head()
    finally:
        reader.close()
    assert head is not None
    assert head.fold == FOLD, f"FOLD was raised: record the snapshot anew by `{RECORD}`."
    kept = load(SNAPSHOT, cast("LogReader", AnyLog(head.digest)))
    assert kept is not None, RAISE
    return kept


def test_a_snapshot_that_was_once_written_is_what_its_records_lead_to() -> None:
    kept = recorded()
    today = folded(kept.state.position)
    today.digest = kept.digest
    try:
        pieces = [*pieces_of(kept)]
    except msgspec.DecodeError as error:
        pytest.fail(f"{error}: {RAISE}")
    for piece, of_today in zip(pieces, pieces_of(today), strict=True):
        assert piece == of_today, RAISE


def test_every_event_is_in_the_history() -> None:
    there = {type(message) for message in messages()}
    missing = tags(Event) - {str(kind.__struct_config__.tag) for kind in there}
    assert not missing, f"Append records of these to {HISTORY.name}, in an order in which they can come: {missing}"


def test_the_snapshot_has_something_of_every_mapping_and_of_most_records() -> None:
    kept = recorded()
    assert [name for name, mapping in kept.mappings.items() if not mapping] == []
    assert len(get_args(Event)) < kept.state.position <= len(messages())


def test_a_history_is_only_appended() -> None:
    kept = recorded()
    streams = {record.stream for record in records_of(*messages()[: kept.state.position])}
    assert streams == set(kept.state.versions)


def main() -> None:
    """Write the snapshot anew, of all records."""
    SNAPSHOT.unlink(missing_ok=True)
    Snapshots(SNAPSHOT, folded(sys.maxsize)).write_at_once()


if __name__ == "__main__":
    main()
