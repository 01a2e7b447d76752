"""docs/formats.md against what is checked and what is taught."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pages import read
from support.checked import checked, dataset_of

from trainer_entry.data import records
from trainer_entry.wire.formats import FORMATS, Text

PAGE = read("docs/formats.md")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
EXAMPLES = [
    (record, follows, BLOCKS[place - 1][2] if place and BLOCKS[place - 1][1] == "columns" else None)
    for place, ((kind, said, record), follows) in enumerate(itertools.pairwise(BLOCKS))
    if kind == "json" and said != "columns"
]


def taught(record: records.Record) -> Iterator[str]:
    """The lines of the page for a record; a star is what carries loss."""
    match record:
        case records.InputOutput(input=prompt, output=answer):
            yield f"user: {prompt}"
            yield f"assistant*: {answer}"
        case Text(text=text):
            yield f"text*: {text}"
        case records.Question(context=context, question=question, answers=answers):
            yield f"context: {context}"
            yield f"question: {question}"
            yield from (f"answer*: {span.text} ({span.start})" for span in answers)
        case records.Preference(prompt=prompt_turns, chosen=chosen, rejected=rejected):
            yield from (said_in(msgspec.structs.replace(turn, learned=False)) for turn in prompt_turns)
            yield from (f"chosen*: {turn.content}" for turn in chosen)
            yield from (f"rejected: {turn.content}" for turn in rejected)
        case records.Prompt(turns=turns):
            yield from map(said_in, turns)
        case records.Conversation(messages=turns, tools=tools):
            if tools:
                yield f"TOOLS: {', '.join(tool['function']['name'] for tool in tools)}"
            yield from map(said_in, turns)


def said_in(turn: records.Turn) -> str:
    """A turn as a line of the page."""
    calls = [f"{call.name}({json.dumps(call.arguments, separators=(',', ':'))})" for call in turn.tool_calls]
    star = "*" if turn.role == "assistant" and turn.learned else ""
    return f"{turn.role}{star}: {turn.content or ', '.join(calls)}"


def test_the_page_has_an_example_of_every_format() -> None:
    shown = {
        checked(record.encode(), columns=json.loads(columns or "null"))[0].format for record, _, columns in EXAMPLES
    }
    assert shown >= set(FORMATS) - {"article_highlights"}  # which is as document and summary


@pytest.mark.parametrize(("record", "follows", "columns"), EXAMPLES, ids=[record[:60] for record, _, _ in EXAMPLES])
def test_a_record_becomes_what_the_page_says(
    record: str, follows: tuple[str, str, str], columns: str | None, tmp_path: Path
) -> None:
    found, lines = checked(record.encode(), columns=json.loads(columns or "null"))
    kind, field, expected = follows
    if kind == "refused":
        assert field in {error.field for error in found.report.errors}
        assert any(expected.strip() in error.message for error in found.report.errors)
        return
    assert (kind, found.report.errors) == ("text", ())
    file = dataset_of(found, lines, tmp_path)
    made = [line.replace("\n", "\\n") for one in records.read_lines(file) for line in taught(one.record)]
    assert made == expected.splitlines()
