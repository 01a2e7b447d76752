"""responses as OpenAI's own client sees them, on answers that are told beforehand."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.openai_answers import BUILT_IN, asked_of, client_of, said, scripted, withdrawn
from support.running_server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from scripted(tmp_path_factory.mktemp("responses"))


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    yield from client_of(server)


def respond(client: openai.OpenAI, given: Any = "Hello", **fields: Any) -> Any:
    return client.responses.create(model=BUILT_IN, input=given, **fields)


def test_a_text_is_answered_and_nothing_is_stored(client: openai.OpenAI) -> None:
    answer = respond(client, said("Bread ", "rises."), metadata={"who": "me"}, user="ada")
    assert answer.output_text == "Bread rises."
    assert (answer.status, answer.incomplete_details, answer.error) == ("completed", None, None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert (answer.metadata, answer.store, answer.tools) == ({"who": "me"}, False, [])
    assert answer.modelforge == {"not_used": ["user"]}
    for ask in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            ask(answer.id)  # type: ignore[operator]
        assert "nothing is stored" in caught.value.message


def test_what_was_said_before_comes_with_the_request(client: openai.OpenAI) -> None:
    first = respond(client, said("Three"))
    given = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "input_text", "text": "One "}, {"type": "input_text", "text": "two"}]},
        *first.output,
        {"type": "message", "role": "user", "content": "And then?"},
    ]
    answer = respond(
        client,
        given,
        instructions="Count.",
        max_output_tokens=9,
        temperature=0,
        top_p=0.5,
        text={"format": {"type": "text"}},
    )
    asked = asked_of(answer.output_text)
    assert [(turn.role, turn.content) for turn in asked.turns] == [
        ("system", "Count."),
        ("system", "Be short."),
        ("user", "One two"),
        ("assistant", "Three"),
        ("user", "And then?"),
    ]
    assert (asked.max_new_tokens, asked.temperature, asked.top_p) == (9, 0.0, 0.5)
    assert (answer.instructions, answer.max_output_tokens, answer.temperature) == ("Count.", 9, 0)


@pytest.mark.parametrize("finish", ["length", "deadline"])
def test_an_answer_that_is_cut_off_is_incomplete(client: openai.OpenAI, finish: str) -> None:
    answer = respond(client, said("x", finish=finish))
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "x"


def test_a_stream_has_the_events_in_their_order(client: openai.OpenAI) -> None:
    events = list(respond(client, said("a", "b"), stream=True))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "ab"
    assert {event.response.id for event in events if hasattr(event, "response")} == {events[0].response.id}
    assert list(respond(client, said("a", finish="length"), stream=True))[-1].type == "response.incomplete"


def test_the_client_puts_a_stream_together(client: openai.OpenAI) -> None:
    with client.responses.stream(model=BUILT_IN, input=said("Bread ", "rises.")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Bread rises."
    assert kinds.count("response.output_text.delta") == 2


def test_a_failure_amid_a_stream_is_raised_and_before_it_is_an_error(client: openai.OpenAI) -> None:
    stream = respond(client, said("a", fail="memory"), stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert "too much memory" in caught.value.message
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as too_long:
            respond(client, said(fail="PromptTooLong"), stream=stream)
        assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "input")


def test_a_client_that_goes_ends_the_answer(client: openai.OpenAI, server: RunningServer) -> None:
    before = withdrawn(server)
    stream = respond(client, said("a", wait=True), stream=True)
    next(iter(stream))
    stream.close()
    withdrawn(server, before + 1)


OUTPUT = {"type": "output_text", "text": "x"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"store": True}, "store"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"reasoning": {"effort": "low"}}, "reasoning"),
        ({"include": ["message.output_text.logprobs", "file_search_call.results"]}, "include[1]"),
        ({"truncation": "auto"}, "truncation"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"temperature": -1}, "temperature"),
        ({"given": []}, "input"),
        ({"given": [{"role": "user", "content": [OUTPUT]}]}, "input[0].content[0].type"),
        ({"given": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
        ({"given": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].type"),
        ({"extra_body": {"stop": "x"}}, "stop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_kept_is_refused_by_its_name(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        respond(client, **fields)
    assert caught.value.param == param


def test_a_model_that_is_none_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="gpt-5", input="x")


def test_probabilities_are_told_whole_and_in_the_pieces_of_a_stream(client: openai.OpenAI) -> None:
    plain = respond(client, said("a"))
    assert (plain.output[0].content[0].logprobs, plain.top_logprobs) == ([], None)
    whole = respond(client, said("a", "b"), include=["message.output_text.logprobs"], top_logprobs=2)
    told = whole.output[0].content[0].logprobs
    assert [(one.token, one.bytes, one.logprob, len(one.top_logprobs)) for one in told] == [
        ("a", [97], -0.5, 2),
        ("b", [98], -0.5, 2),
    ]
    events = list(respond(client, said("a", "b"), include=["message.output_text.logprobs"], stream=True))
    deltas = [event.logprobs[0].token for event in events if event.type == "response.output_text.delta"]
    assert deltas == ["a", "b"]
    assert [one.token for one in events[-1].response.output[0].content[0].logprobs] == ["a", "b"]
    said_before = [{"role": "user", "content": "x"}, *whole.output, {"role": "user", "content": said("c")}]
    assert respond(client, said_before).output_text == "c"
