"""docs/openai.md against the code."""

import ast

import msgspec
from pages import blocks, code, read, rows, section

from modelforge.http.openai.fine_tuning import STATUSES
from modelforge.http.openai.fine_tuning_request import FineTuningBody, PreferenceHyperparameters
from modelforge.http.openai.webhook_events import WebhookEvent
from modelforge.http.plumbing.openai_errors import ErrorAnswer

PAGE = read("docs/openai.md")


def table(begins: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    return rows(PAGE[PAGE.index(begins) :])


def test_every_state_has_its_line() -> None:
    assert {code(state)[0]: code(status)[0] for state, status in table("| State of a job")} == STATUSES


def test_what_is_told_of_a_job_is_taken() -> None:
    told = {name for theirs, _ in table("| OpenAI's |") for name in code(theirs)}
    taken = {*FineTuningBody.__struct_fields__, *PreferenceHyperparameters.__struct_fields__}
    assert told - taken == {"supervised", "dpo", "reinforcement"}
    assert set(PreferenceHyperparameters.__struct_fields__) <= told


def test_what_is_told_to_be_refused_is_known_to_the_code() -> None:
    told = {name for theirs, _ in rows(section(PAGE, "What is refused by name")) for name in code(theirs)}
    assert {"validation_file", "integrations"} <= told & set(FineTuningBody.__struct_fields__)


def test_the_examples_are_what_they_are_called() -> None:
    (example,) = blocks(PAGE, "json ErrorAnswer")
    msgspec.json.decode(example, type=ErrorAnswer)
    (event,) = blocks(PAGE, "json WebhookEvent")
    assert msgspec.json.decode(event) == msgspec.to_builtins(msgspec.json.decode(event, type=WebhookEvent))
    programs = blocks(PAGE, "python")
    assert len(programs) == 2
    for program in programs:
        ast.parse(program)
