"""What a request to the playground's worker can say, beside a prompt."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.inference_process import Worker
from support.tiny_model import SPECIAL_TOKENS, build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.training

WITH_TOOLS = (
    "{% if tools %}tools: {{ tools | tojson }}{{ '\n' }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}"
    "{% if m.name %} {{ m.name }}{% endif %}{% if m.tool_call_id %} {{ m.tool_call_id }}{% endif %}{{ '\n' }}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.id }} {{ c.function.name }} "
    "{{ c.function.arguments.at }}{% endfor %}<|im_end|>{{ '\n' }}{% endfor %}<|im_start|>assistant{{ '\n' }}"
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(tmp_path_factory.mktemp("worker") / "stderr.log")
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "model", chat_template=WITH_TOOLS)


def logits_after(model: Path, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = AutoModelForCausalLM.from_pretrained(model)(torch.tensor([ids])).logits
    return found[0, -1]


def ids_of(model: Path, text: str) -> list[int]:
    found: list[int] = AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"]
    return found


def failure(worker: Worker, model: Path, **changes: Any) -> wire.GenerationFailed:
    _, failed = worker.answer(worker.ask(model, **changes))
    assert isinstance(failed, wire.GenerationFailed), failed
    return failed


def test_a_chat_is_written_by_the_models_template_with_its_tools(worker: Worker, model: Path) -> None:
    # given
    call = wire.ToolCall(id="c1", name="cook", arguments='{"at": 7}')
    turns = (
        wire.ChatTurn(role="system", content="You are a cook."),
        wire.ChatTurn(role="user", content="How long?"),
        wire.ChatTurn(role="assistant", content="", tool_calls=(call,)),
        wire.ChatTurn(role="tool", content="8", tool_call_id="c1", name="cook"),
    )
    tools = [{"type": "function", "function": {"name": "cook"}}]
    text = (
        f"tools: {json.dumps(tools)}\n<|im_start|>system\nYou are a cook.<|im_end|>\n"
        "<|im_start|>user\nHow long?<|im_end|>\n<|im_start|>assistant\nc1 cook 7<|im_end|>\n"
        "<|im_start|>tool cook c1\n8<|im_end|>\n<|im_start|>assistant\n"
    )
    # when
    chat = worker.generate(model, prompt="", turns=turns, tools=json.dumps(tools))
    # then it reads the same tokens
    same = worker.generate(model, prompt="", prompt_ids=tuple(ids_of(model, text)))
    assert chat.prompt_tokens == same.prompt_tokens == len(ids_of(model, text))
    assert chat.text == same.text
    assert worker.generate(model, prompt="", turns=turns).prompt_tokens < chat.prompt_tokens


def test_a_chat_that_cannot_be_written_says_why(worker: Worker, model: Path, tmp_path: Path) -> None:
    plain = build_tiny_model(tmp_path / "plain", chat_template=None)
    turn = wire.ChatTurn(role="user", content="Why?")
    assert failure(worker, plain, turns=(turn, turn)).kind == "NoChatTemplate"
    assert failure(worker, plain, turns=(turn,), tools='[{"type": "function"}]').kind == "NoChatTemplate"
    assert worker.generate(plain, turns=(turn,)).text == worker.generate(plain, prompt="Why?").text
    call = wire.ToolCall(id="1", name="cook", arguments="[]")
    broken = wire.ChatTurn(role="assistant", content="", tool_calls=(call,))
    assert failure(worker, model, turns=(turn, broken)).kind == "ChatTemplateFails"
    assert failure(worker, model, turns=(turn,), tools="{").kind == "ChatTemplateFails"


def test_a_verbatim_prompt_is_read_as_it_stands(worker: Worker, model: Path) -> None:
    said = worker.generate(model, prompt="<s>Rice is", verbatim=True)
    assert said.prompt_tokens == len(ids_of(model, "<s>Rice is"))
    assert said.text == worker.generate(model, prompt="", prompt_ids=tuple(ids_of(model, "<s>Rice is"))).text
    assert worker.generate(model, prompt="", verbatim=True).prompt_tokens == 1  # what begins a text


def test_a_token_that_the_model_does_not_have_is_refused(worker: Worker, model: Path) -> None:
    for changes in ({"prompt_ids": (1, 100_000)}, {"prompt_ids": (-1,)}, {"logit_bias": {100_000: 1.0}}):
        failed = failure(worker, model, **changes)
        assert failed.kind == "UnknownToken"
        assert str(100_000 if "-1" not in str(changes) else -1) in failed.message


def test_a_stop_ends_the_answer_and_no_piece_has_any_of_it(worker: Worker, model: Path) -> None:
    # given
    whole = worker.generate(model, max_new_tokens=30).text
    for begin, end in ((5, 9), (8, 9), (3, 12)):
        stop = whole[begin:end]
        # when
        pieces, answer = worker.answer(worker.ask(model, max_new_tokens=30, stop=("never said", stop)))
        # then
        assert isinstance(answer, wire.Generated)
        assert "".join(pieces) == answer.text == whole[: whole.index(stop)]
        assert answer.finish == "stop"
    # and what only begins as a stop does is sent after all
    unfinished = worker.generate(model, max_new_tokens=30, stop=(f"{whole[-4:]}!",))
    assert (unfinished.text, unfinished.finish) == (whole, "length")


def test_probabilities_are_the_models_own_before_anything_changes_them(worker: Worker, model: Path) -> None:
    # given
    ids = ids_of(model, "Rice is")
    changes = {"prompt_ids": tuple(ids), "temperature": 2.0, "top_p": 0.5, "seed": 1, "logit_bias": {40: 30.0}}
    # when
    heard = worker.answers(worker.ask(model, prompt="", max_new_tokens=1, top_logprobs=3, **changes))
    ((pieces, _),) = heard.values()
    # then
    told = [logprob for piece in pieces for logprob in piece.logprobs]
    truth = torch.log_softmax(logits_after(model, ids), dim=-1)
    assert len(told) == 1
    assert told[0].logprob == pytest.approx(float(truth[40]), abs=1e-4)
    assert [likely.logprob for likely in told[0].top] == pytest.approx(truth.topk(3).values.tolist(), abs=1e-4)


def test_every_piece_has_the_probabilities_of_its_tokens_and_their_bytes(worker: Worker, model: Path) -> None:
    # given a text whose characters take several tokens each, as the likeliest
    text = "é — 米"
    ids = ids_of(model, text)
    assert len(ids) > len(text)
    told: list[wire.TokenLogprob] = []
    for biased in ids:
        request = worker.ask(model, max_new_tokens=1, top_logprobs=0, logit_bias={biased: 100.0})
        ((pieces, _),) = worker.answers(request).values()
        told += [logprob for piece in pieces for logprob in piece.logprobs]
    assert bytes(byte for token in told for byte in token.bytes).decode() == text
    # and of an answer in pieces
    request = worker.ask(model, max_new_tokens=40, temperature=1.0, seed=3, top_logprobs=2)
    ((pieces, answer),) = worker.answers(request).values()
    assert isinstance(answer, wire.Generated)
    assert sum(len(piece.logprobs) for piece in pieces) == answer.tokens - (answer.finish == "stop")
    tokens = [token for piece in pieces for token in piece.logprobs if token.text not in SPECIAL_TOKENS]
    spelled = bytes(byte for token in tokens for byte in token.bytes)
    assert spelled.decode(errors="replace") == answer.text
    assert all(math.isfinite(token.logprob) and len(token.top) == 2 for piece in pieces for token in piece.logprobs)


def test_tokens_without_a_text_have_their_probabilities_too(worker: Worker, model: Path) -> None:
    # given an answer of tokens that are not shown
    request = worker.ask(model, max_new_tokens=3, top_logprobs=1, logit_bias={1: 100.0})
    # when
    ((pieces, answer),) = worker.answers(request).values()
    # then
    assert isinstance(answer, wire.Generated)
    assert (answer.text, answer.tokens) == ("", 3)
    assert [logprob.text for piece in pieces for logprob in piece.logprobs] == [SPECIAL_TOKENS[1]] * 3


def test_an_end_token_is_no_part_of_the_answer_though_it_is_like_any_other(worker: Worker, tmp_path: Path) -> None:
    # given a model that ends with a token that others write in the middle of a text
    model = build_tiny_model(tmp_path / "model")
    settings = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [4, 40]}))
    # when
    answer = worker.generate(model, logit_bias={40: 100.0})
    # then
    assert (answer.text, answer.tokens, answer.finish) == ("", 1, "stop")


def test_penalties_and_biases_change_what_is_said(worker: Worker, model: Path) -> None:
    # given a token that would always come
    biased = {"logit_bias": {40: 50.0}, "max_new_tokens": 6}
    alone = worker.generate(model, **biased)
    token = AutoTokenizer.from_pretrained(model).decode([40])
    assert alone.text == token * 6
    # when its second coming costs more than its bias, and when each costs a part
    once = worker.generate(model, presence_penalty=2.0, frequency_penalty=2.0, **(biased | {"logit_bias": {40: 3.0}}))
    counted = Counter(once.text.split(token))
    # then
    assert once.text.count(token) < 6, counted
    assert worker.generate(model, **(biased | {"logit_bias": {40: -100.0}})).text.count(token) == 0


def test_an_answer_that_is_withdrawn_ends_early_and_holds_nobody_up(worker: Worker, model: Path) -> None:
    # given
    long = worker.ask(model, max_new_tokens=200, logit_bias={1: -100.0, 2: -100.0, 4: -100.0})
    other = worker.ask(model, max_new_tokens=3)
    # when
    worker.withdraw(long)
    worker.withdraw(10_000)  # nobody's
    # then
    heard = worker.answers(long, other)
    pieces, failed = heard[long]
    assert isinstance(failed, wire.GenerationFailed)
    assert failed.kind == "Withdrawn"
    assert len(pieces) < 190
    assert isinstance(heard[other][1], wire.Generated)
