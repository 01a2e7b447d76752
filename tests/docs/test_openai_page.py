"""docs/openai.md against the code."""

import ast

import msgspec
from pages import blocks, code, read, rows, section

from modelforge.http.openai.chat_request import NOT_USED, ChatBody
from modelforge.http.openai.chat_request import UNKEPT as CHAT_UNKEPT
from modelforge.http.openai.completions import CompletionBody
from modelforge.http.openai.fine_tuning_body import FineTuningBody, PreferenceHyperparameters
from modelforge.http.openai.fine_tuning_job import STATUSES
from modelforge.http.openai.response_request import UNKEPT, ResponseBody
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


def test_every_field_of_an_answer_is_told_as_used_or_as_refused() -> None:
    used = {name for fields, _ in table("| Field | here |") for name in code(fields)}
    refused = " ".join(theirs for theirs, _ in rows(section(PAGE, "What is refused by name")))
    for body, unkept in ((ChatBody, CHAT_UNKEPT), (CompletionBody, {"suffix", "best_of"}), (ResponseBody, UNKEPT)):
        assert {name for name in unkept if f"`{name}" not in refused} == set()
        assert {*body.__struct_fields__} - {"model", "text", *unkept} <= used
    assert used <= {*ChatBody.__struct_fields__, *CompletionBody.__struct_fields__, *ResponseBody.__struct_fields__}
    assert {*NOT_USED} <= used


def test_the_examples_are_what_they_are_called() -> None:
    (example,) = blocks(PAGE, "json ErrorAnswer")
    msgspec.json.decode(example, type=ErrorAnswer)
    (event,) = blocks(PAGE, "json WebhookEvent")
    assert msgspec.json.decode(event) == msgspec.to_builtins(msgspec.json.decode(event, type=WebhookEvent))
    programs = blocks(PAGE, "python")
    assert len(programs) == 3
    for program in programs:
        ast.parse(program)
