"""Every record type that was ever written still decodes, and those of today are written as they are read.

A new type, or a type with a new field: `test_every_type_is_on_record` says which line to append. A line that
is there is never changed or taken out: it stands for what lies in somebody's log.
"""

from pathlib import Path
from types import UnionType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.golden_lines import Line, line_of, tags
from support.kept_values import kept

from modelforge.domain.messages import Command, Event, Kind, decode, encode, tag_of

FILE = Path(__file__).with_name("records.jsonl")


LINES = msgspec.json.Decoder(Line).decode_lines(FILE.read_bytes())
NEWEST = {line.type: line for line in LINES}


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.type)
def test_a_record_that_was_once_written_decodes_and_loses_nothing(line: Line) -> None:
    message = decode(line.kind, bytes(line.data))
    assert tag_of(message) == line.type
    assert kept(msgspec.json.decode(line.data), msgspec.json.decode(encode(message)))
    assert decode(line.kind, encode(message)) == message


@pytest.mark.parametrize("line", NEWEST.values(), ids=lambda line: line.type)
def test_the_newest_record_of_a_type_is_written_as_it_was_read(line: Line) -> None:
    assert encode(decode(line.kind, bytes(line.data))) == bytes(line.data), (
        "A field was added: leave the line, and append\n"
        + line_of(decode(line.kind, bytes(line.data))).decode()
        + f"\nto {FILE.name}."
    )


@pytest.mark.parametrize(("kind", "union"), [("command", Command), ("event", Event)])
def test_every_type_is_on_record(kind: Kind, union: UnionType) -> None:
    on_record = {line.type for line in LINES if line.kind == kind}
    assert tags(union) - on_record == set(), (
        f"Append line_of(message) of one message of each of these types to {FILE.name}; "
        "tests/support/scenario.py makes messages."
    )
    assert on_record - tags(union) == set(), "A type that was once written can no longer be read."


def test_a_command_is_not_read_as_an_event() -> None:
    for line in LINES:
        other: Kind = "event" if line.kind == "command" else "command"
        with pytest.raises(msgspec.ValidationError):
            decode(other, bytes(line.data))


@given(st.data())
def test_a_field_of_a_later_release_is_passed_over(data: st.DataObject) -> None:
    line = data.draw(st.sampled_from(LINES))
    later = bytes(line.data)[:-1] + b',"a_later_field":{"n":[1,null]}}'
    assert decode(line.kind, later) == decode(line.kind, bytes(line.data))
