"""completions as OpenAI's own client sees them, on answers that are told beforehand."""

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from support.openai_answers import BUILT_IN, asked_of, client_of, said, scripted
from support.running_server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from scripted(tmp_path_factory.mktemp("completions"))


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    yield from client_of(server)


def complete(client: openai.OpenAI, prompt: Any = "Once", **fields: Any) -> Any:
    return client.completions.create(model=BUILT_IN, prompt=prompt, **fields)


def test_a_text_goes_on_as_it_is_in_no_chat(client: openai.OpenAI) -> None:
    answer = complete(client, "Once upon", stop="\n", seed=5, logprobs=2)
    (choice,) = answer.choices
    asked = asked_of(choice.text)
    assert (asked.prompt, asked.verbatim, asked.turns, asked.prompt_ids) == ("Once upon", True, (), ())
    assert (asked.max_new_tokens, asked.stop, asked.seed, asked.top_logprobs) == (16, ("\n",), 5, 2)
    assert (answer.object, choice.finish_reason, answer.usage.total_tokens) == ("text_completion", "stop", 8)
    assert answer.id.startswith("cmpl-")


@pytest.mark.parametrize(
    ("prompt", "texts", "ids"),
    [
        ("a", ["a"], [()]),
        (["a", "b"], ["a", "b"], [(), ()]),
        ([1, 2], [""], [(1, 2)]),
        ([[1, 2], [3]], ["", ""], [(1, 2), (3,)]),
    ],
)
def test_prompts_are_texts_or_tokens_alone_or_several(
    client: openai.OpenAI, prompt: object, texts: list[str], ids: list[tuple[int, ...]]
) -> None:
    asked = [asked_of(choice.text) for choice in complete(client, prompt).choices]
    assert [one.prompt for one in asked] == texts
    assert [one.prompt_ids for one in asked] == ids


def test_each_prompt_has_n_answers_and_is_counted_once(client: openai.OpenAI) -> None:
    answer = complete(client, [said("a"), said("b", "c")], n=2, best_of=2)
    assert [(one.index, one.text) for one in answer.choices] == [(0, "a"), (1, "a"), (2, "bc"), (3, "bc")]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (14, 6)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_echo_begins_with_the_prompt(client: openai.OpenAI, stream: object) -> None:
    prompt = said("a", "b")
    answers = complete(client, prompt, echo=True, stream=bool(stream))
    parts = [choice.text for one in (answers if stream else [answers]) for choice in one.choices]
    assert "".join(parts) == prompt + "ab"


def test_probabilities_stand_by_the_tokens_and_where_each_begins(client: openai.OpenAI) -> None:
    whole = complete(client, said("a", "ö", "c"), logprobs=2).choices[0].logprobs
    assert (whole.tokens, whole.token_logprobs, whole.text_offset) == (["a", "ö", "c"], [-0.5] * 3, [0, 1, 2])
    assert whole.top_logprobs[1] == {"ö": -0.5, "other 1": -0.5}
    chunks = list(complete(client, said("a", "ö", "c"), logprobs=2, stream=True))
    assert [one.choices[0].logprobs.text_offset for one in chunks if one.choices[0].logprobs] == [[0], [1], [2]]


def test_a_stream_brings_the_pieces_and_at_last_the_usage(client: openai.OpenAI) -> None:
    chunks = list(complete(client, said("a", "b"), stream=True, stream_options={"include_usage": True}))
    assert [(one.text, one.finish_reason) for chunk in chunks for one in chunk.choices] == [
        ("a", None),
        ("b", None),
        ("", "stop"),
    ]
    assert len({chunk.id for chunk in chunks}) == 1
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 9)
    with pytest.raises(openai.APIError):
        list(complete(client, said("a", fail="memory"), stream=True))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[1], "a"]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ["a"] * 9, "n": 4}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"prompt": [1], "echo": True}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"colour": "blue"}}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_kept_is_refused_by_its_name(client: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(client, **fields)
    assert caught.value.param == param


def test_refusals_of_the_worker_and_of_the_name_are_the_clients_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as too_long:
        complete(client, said(fail="PromptTooLong"))
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "prompt")
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="davinci-002", prompt="x")
