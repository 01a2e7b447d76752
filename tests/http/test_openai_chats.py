"""chat.completions as OpenAI's own client sees them, on answers that are told beforehand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from support.attempt_files import model_in, write_model
from support.openai_answers import BUILT_IN, asked_of, client_of, said, scripted, withdrawn
from support.running_server import RunningServer

from modelforge.domain.idempotency import IdempotencyKey
from modelforge.http.generation import GivenAnswers

WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a place.", "parameters": {"type": "object"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from scripted(tmp_path_factory.mktemp("chats"))


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    yield from client_of(server)


def chat(client: openai.OpenAI, content: str = "Hello", **fields: Any) -> Any:
    messages = fields.pop("messages", [{"role": "user", "content": content}])
    return client.chat.completions.create(model=BUILT_IN, messages=messages, **fields)


def refused(client: openai.OpenAI, **fields: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, **fields)
    return caught.value


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = chat(client, said("Bread ", "rises."))
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == ("Bread rises.", "assistant", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 2, 9)
    assert answer.id.startswith("chatcmpl-")
    assert answer.created > 1_700_000_000
    assert answer.model == BUILT_IN
    assert answer.system_fingerprint == chat(client, said("x")).system_fingerprint
    assert choice.message.tool_calls is None
    assert choice.logprobs is None
    assert not hasattr(answer, "modelforge")


def test_what_the_client_says_reaches_the_worker(client: openai.OpenAI) -> None:
    answer = chat(
        client,
        messages=[
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": [{"type": "text", "text": "One "}, {"type": "text", "text": "and two"}]},
            {"role": "assistant", "content": "Three"},
            {"role": "user", "content": "And then?", "name": "ada"},
        ],
        max_completion_tokens=33,
        temperature=0.5,
        top_p=0.25,
        stop=["\n", "END"],
        seed=-1,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logit_bias={"17": -100},
        logprobs=True,
        top_logprobs=3,
    )
    asked = asked_of(answer.choices[0].message.content)
    assert [(turn.role, turn.content) for turn in asked.turns] == [
        ("system", "Be short."),
        ("user", "One and two"),
        ("assistant", "Three"),
        ("user", "And then?"),
    ]
    assert asked.turns[-1].name == "ada"
    assert (asked.max_new_tokens, asked.temperature, asked.top_p, asked.stop) == (33, 0.5, 0.25, ("\n", "END"))
    assert (asked.seed, asked.frequency_penalty, asked.presence_penalty) == (2**32 - 1, 0.5, -0.5)
    assert (asked.logit_bias, asked.top_logprobs, asked.tools) == ({17: -100.0}, 3, None)
    (token,) = answer.choices[0].logprobs.content
    assert (len(token.top_logprobs), token.logprob, bytes(token.bytes).decode()) == (3, -0.5, token.token)


def test_defaults_are_those_of_openai(client: openai.OpenAI) -> None:
    asked = asked_of(chat(client, stop="x").choices[0].message.content)
    assert (asked.temperature, asked.top_p, asked.seed, asked.top_logprobs) == (1.0, 1.0, None, None)
    assert (asked.stop, asked.max_new_tokens) == (("x",), 131_072)


def test_several_answers_have_seeds_of_their_own_and_one_usage(client: openai.OpenAI) -> None:
    answer = chat(client, n=3, seed=41)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert [asked_of(choice.message.content).seed for choice in answer.choices] == [41, 42, 43]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 3)


@pytest.mark.parametrize(("finish", "reason"), [("stop", "stop"), ("length", "length"), ("deadline", "length")])
def test_an_answer_that_is_cut_off_says_so(client: openai.OpenAI, finish: str, reason: str) -> None:
    assert chat(client, said("x", finish=finish)).choices[0].finish_reason == reason


def test_a_stream_brings_the_pieces_as_they_come(client: openai.OpenAI) -> None:
    chunks = list(chat(client, said("a", "b"), n=2, stream=True, stream_options={"include_usage": True}))
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    deltas = [(one.index, one.delta.role, one.delta.content, one.finish_reason) for c in chunks for one in c.choices]
    assert sorted(deltas, key=lambda delta: delta[0]) == [
        (index, *rest)
        for index in (0, 1)
        for rest in (("assistant", "", None), (None, "a", None), (None, "b", None), (None, None, "stop"))
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7 + 4
    assert {chunk.usage for chunk in chunks[:-1]} == {None}
    assert "usage" not in next(iter(chat(client, said("a"), stream=True))).model_fields_set


def test_the_client_puts_a_stream_together(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": said("Bread ", "rises.")}]
    with client.chat.completions.stream(model=BUILT_IN, messages=messages, logprobs=True) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "Bread rises."
    assert final.choices[0].logprobs is not None
    assert [token.token for token in final.choices[0].logprobs.content or ()] == ["Bread ", "rises."]


def test_the_client_puts_answers_together_of_which_the_first_comes_last(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": said("Bread ", "rises.", late=5)}]
    with client.chat.completions.stream(model=BUILT_IN, messages=messages, n=3, seed=5) as stream:
        first = next(event.chunk.choices[0] for event in stream if event.type == "chunk" and event.chunk.choices)
        final = stream.get_final_completion()
    assert first.index == 0
    assert [(choice.index, choice.message.content) for choice in final.choices] == [
        (place, "Bread rises.") for place in range(3)
    ]


CALL = '{"name": "weather", "arguments": {"place": "Graz"}}'


@pytest.mark.parametrize(
    "written",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"<tool_call>[{CALL}]</tool_call>",
        f"<tool_call>{CALL}",
        CALL,
        f"[{CALL}]",
        CALL.replace("arguments", "parameters"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_in_the_models_own_words_is_a_tool_call(client: openai.OpenAI, written: str, stream: object) -> None:
    pieces = [written[place : place + 3] for place in range(0, len(written), 3)]
    if stream:
        messages: Any = [{"role": "user", "content": said(*pieces)}]
        with client.chat.completions.stream(model=BUILT_IN, messages=messages, tools=[WEATHER]) as events:
            choice: Any = events.get_final_completion().choices[0]
    else:
        choice = chat(client, said(*pieces), tools=[WEATHER]).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert not choice.message.content
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name, json.loads(call.function.arguments)) == (
        "function",
        "weather",
        {"place": "Graz"},
    )
    assert call.id.startswith("call_")


@pytest.mark.parametrize(
    "written",
    [
        "<tool_call> is how one calls.",
        '{"name": "another", "arguments": {}}',
        '<tool_call>{"name": "weather", "arguments": "no object"}</tool_call>',
        '<tool_call>{"name": ["weather"]}</tool_call> and on',
        "[1] is a footnote; a < b.\n",
        "  ",
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_is_no_call_stays_the_text_that_it_is(client: openai.OpenAI, written: str, stream: object) -> None:
    if stream:
        chunks = chat(client, said(*written), tools=[WEATHER], stream=True)
        assert "".join(one.delta.content or "" for chunk in chunks for one in chunk.choices) == written
    else:
        (choice,) = chat(client, said(written), tools=[WEATHER]).choices
        assert (choice.message.content, choice.finish_reason) == (written, "stop")


def test_words_beside_calls_are_kept_and_two_calls_have_two_ids(client: openai.OpenAI) -> None:
    two = f"I look.\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>\n"
    message = chat(client, said(*two), tools=[WEATHER]).choices[0].message
    assert message.content == "I look."
    assert len({call.id for call in message.tool_calls}) == 2


def test_a_call_and_what_came_of_it_go_back_to_the_model(client: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": said(f"<tool_call>{CALL}</tool_call>")}
    first = chat(client, messages=[question], tools=[WEATHER]).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "Rain"}
    answer = chat(client, messages=[question, first, result], tools=[WEATHER])
    asked = asked_of(answer.choices[0].message.content)
    assert asked.turns[1].tool_calls[0].name == "weather"
    assert (asked.turns[2].role, asked.turns[2].name, asked.turns[2].content) == ("tool", "weather", "Rain")
    assert asked.tools is not None
    assert json.loads(asked.tools) == [WEATHER]
    without = asked_of(chat(client, tools=[WEATHER], tool_choice="none").choices[0].message.content)
    assert without.tools is None


def test_an_answer_that_the_client_put_together_goes_back_as_it_is(client: openai.OpenAI) -> None:
    # given messages of a stream and of `parse`, with what the client adds to them
    question: Any = {"role": "user", "content": said(f"<tool_call>{CALL}</tool_call>")}
    ask: Any = {"model": BUILT_IN, "messages": [question], "tools": [WEATHER]}
    with client.chat.completions.stream(**ask) as stream:
        called = stream.get_final_completion().choices[0].message
    parsed = client.chat.completions.parse(model=BUILT_IN, messages=[{"role": "user", "content": said("Rain")}])
    assert called.tool_calls is not None
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "Rain"}
    # when
    answer = chat(
        client, messages=[question, called, result, parsed.choices[0].message, {"role": "user", "content": "?"}]
    )
    # then
    asked = asked_of(answer.choices[0].message.content)
    assert [turn.role for turn in asked.turns] == ["user", "assistant", "tool", "assistant", "user"]
    assert (asked.turns[1].tool_calls[0].name, asked.turns[3].content) == ("weather", "Rain")


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "y"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "colour": "blue"}]}, "messages[0].colour"),
        ({"messages": [{"role": "assistant", "content": "x", "parsed": {"a": 1}}]}, "messages[0].parsed"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
        ({"n": 9}, "n"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"x": 1}}, "logit_bias.x"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "x", "strict": True}}]}, "tools[0].function.strict"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "x"}]}, "functions"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_kept_is_refused_by_its_name(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    error = refused(client, **fields)
    assert (error.param, error.type) == (param, "invalid_request_error")


def test_what_changes_nothing_is_taken_and_what_is_not_used_is_named(client: openai.OpenAI) -> None:
    answer = chat(
        client,
        response_format={"type": "text"},
        modalities=["text"],
        store=False,
        service_tier="auto",
        parallel_tool_calls=True,
        user="ada",
        metadata={"a": "b"},
    )
    assert answer.modelforge == {"not_used": ["metadata", "user"]}


DOCUMENT = b'{"article": "Bread rises for it is warm.", "highlights": "Bread."}\n' * 20
READING = b'{"question": "What?", "context": "It is warm.", "answers": {"text": ["warm"], "answer_start": [6]}}\n' * 20


def trained(server: RunningServer, model: Path, task: str, records: bytes) -> str:
    """The name of a model that was trained for a task, by a trainer that is scripted."""
    assert server.upload(records, f"{task}.jsonl", task=task).ok
    body = {"task": task, "model_name": str(model), "dataset": f"{task}.jsonl", "output_name": "completes"}
    started = server.post("/api/start_training", body)
    assert started.ok, started.text
    details: Any = server.wait_for(started.json()["job_id"], "completed")
    return f"ft:{model}:completes:{details['model_id']}"


def test_a_model_is_asked_for_what_it_was_trained_for(client: openai.OpenAI, server: RunningServer) -> None:
    model = model_in(Path(server._data_dir()).parent)  # noqa: SLF001 - within its roots
    name = trained(server, model, "summarization", DOCUMENT)
    messages: Any = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "First."},
        {"role": "user", "content": "Second."},
    ]
    for asked_for in (name, str(model)):
        content = client.chat.completions.create(model=asked_for, messages=messages).choices[0].message.content
        asked = asked_of(content)
        assert (asked.prompt, asked.turns, asked.task) == ("Second.", (), "summarization")
        assert (asked.adapter_path is None) == (asked_for != name)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=name, messages=messages, tools=[WEATHER])
    assert caught.value.param == "tools"
    bert = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 16, "model_type": "bert"}
    encoder = write_model(model.with_name("encoder"), {"architectures": ["BertForQuestionAnswering"], **bert})
    reader = trained(server, encoder, "extractive-question-answering", READING)
    with pytest.raises(openai.BadRequestError) as no_text:
        client.chat.completions.create(model=reader, messages=messages)
    assert no_text.value.param == "model"
    assert "context" in no_text.value.message


def test_a_model_that_is_none_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "x"}])
    assert "GET /v1/models" in caught.value.message
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_a_path_that_is_not_kept_is_not_found_in_openai_s_shape(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.embeddings.create(model="x", input="y"),
        lambda: client.fine_tuning.checkpoints.permissions.create("ft:x", project_ids=["p"]),
        lambda: client.responses.input_items.list("resp_1"),
    ):
        with pytest.raises(openai.NotFoundError, match="not kept here") as caught:
            ask()
        assert caught.value.code == "not_found"


def test_an_answer_has_an_id_by_which_the_log_has_what_was_unforeseen(
    client: openai.OpenAI, server: RunningServer
) -> None:
    ids = {chat(client, said("x"))._request_id for _ in range(2)}  # noqa: SLF001 - its documented name
    assert len(ids) == 2
    with pytest.raises(openai.InternalServerError) as caught:
        chat(client, said("a", fail="unforeseen"))
    assert caught.value.request_id is not None
    assert str(caught.value.request_id).startswith("req_")
    assert caught.value.request_id not in ids
    stream = chat(client, said("a", fail="unforeseen"), stream=True)
    with pytest.raises(openai.APIError, match="its log has the details") as amid:
        list(stream)
    assert amid.value.type == "server_error"
    with pytest.raises(openai.APIError, match="its log has the details"):
        list(client.responses.create(model=BUILT_IN, input=said("a", fail="unforeseen"), stream=True))


def test_a_token_has_one_bias(client: openai.OpenAI) -> None:
    assert refused(client, logit_bias={"5": 1, "05": 2}).param == "logit_bias.05"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_the_worker_cannot_answer_is_an_error_before_the_first_piece(client: openai.OpenAI, stream: bool) -> None:  # noqa: FBT001 - a parameter
    too_long = refused(client, content=said(fail="PromptTooLong"), stream=stream)
    assert (too_long.code, too_long.param) == ("context_length_exceeded", "messages")
    assert refused(client, content=said(fail="ChatTemplateFails"), stream=stream).param == "model"
    with pytest.raises(openai.RateLimitError) as busy:
        chat(client, said(fail="busy"), stream=stream)
    assert busy.value.response.headers["Retry-After"] == "5"
    with pytest.raises(openai.ConflictError):
        chat(client, said(fail="Other"), stream=stream)
    with pytest.raises(openai.InternalServerError):
        chat(client, said(fail="memory"), stream=stream)


def test_a_failure_amid_a_stream_is_raised_by_the_client(client: openai.OpenAI) -> None:
    stream = chat(client, said("a", fail="memory"), stream=True)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert "too much memory" in caught.value.message


def test_a_body_is_read_as_deeply_as_it_is_nested_or_refused(server: RunningServer) -> None:
    answers = set()
    for depth in range(900, 1000):
        nested = f'{{"a": {"[" * depth}{"]" * depth}}}'
        body = f'{{"model": "{BUILT_IN}", "messages": [{{"role": "user", "content": "x"}}], "metadata": {nested}}}'
        answer = server.post("/v1/chat/completions", data=body, headers={"Content-Type": "application/json"})
        answers.add(answer.status_code)
    assert answers == {200, 400}


def test_a_chat_that_is_too_long_for_any_model_is_refused_before_one_is_asked(client: openai.OpenAI) -> None:
    error = refused(client, content="x" * 500_001)
    assert (error.code, error.param) == ("context_length_exceeded", "messages")


def test_a_client_that_goes_ends_the_answer(client: openai.OpenAI, server: RunningServer) -> None:
    before = withdrawn(server)
    stream = chat(client, said("a", wait=True), stream=True)
    next(iter(stream))
    stream.close()
    withdrawn(server, before + 1)
    with pytest.raises(openai.APITimeoutError):
        chat(client.with_options(timeout=0.5), said("a", wait=True))
    withdrawn(server, before + 2)


def test_a_key_gets_the_first_answer_again(client: openai.OpenAI) -> None:
    key = {"Idempotency-Key": "chat"}
    first = chat(client, "Hello", extra_headers=key)
    assert chat(client, "Hello", extra_headers=key) == first
    with pytest.raises(openai.ConflictError):
        chat(client, "Bye", extra_headers=key)
    assert "stream" in refused(client, stream=True, extra_headers=key).message


def test_answers_that_are_kept_for_their_keys_have_an_end() -> None:
    given = GivenAnswers()
    keys = [IdempotencyKey(value=str(number), request_sha256="") for number in range(4)]
    for key in keys:
        given.keep(key, bytes(24 << 20))
    assert [given.find(key) is not None for key in keys] == [False, False, True, True]
    given.keep(keys[0], bytes(65 << 20))
    assert given.find(keys[0]) is None


TEXT = {"task": "text-generation"}


def test_the_playground_takes_a_chat_and_stops(server: RunningServer) -> None:
    turns = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
    answer = server.post("/api/playground/generate", {"messages": turns, "stop": ["\n"], **TEXT}).json()
    asked = asked_of(answer["generated_text"])
    assert [msgspec.structs.asdict(turn)["content"] for turn in asked.turns] == ["Be short.", "Hello"]
    assert (asked.prompt, asked.stop) == ("", ("\n",))
    for body, field in (
        ({"messages": turns, "prompt": "x"}, "messages"),
        ({}, "prompt"),
        ({"messages": turns, "task": "summarization"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"prompt": "x", "stop": ["a"] * 5}, "stop"),
    ):
        refusal = server.post("/api/playground/generate", {**TEXT, **body})
        assert (refusal.status_code, refusal.json()["field"]) == (400, field)
