"""The playground's worker: one process, many requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.inference_process import DECODER, Worker
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.training,
    # peft reads a name that this release of transformers has deprecated.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(tmp_path_factory.mktemp("worker") / "stderr.log")
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes what the model says."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    torch.manual_seed(1)
    config = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False, lora_alpha=64)
    get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def expected(model: Path, prompt: str, tokens: int) -> str:
    """What transformers itself says, greedily."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    output = AutoModelForCausalLM.from_pretrained(model).generate(ids, max_new_tokens=tokens, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_the_base_model_and_the_adapter_are_told_apart(worker: Worker, tiny_model: Path, adapter: Path) -> None:
    # when
    base = worker.generate(tiny_model)
    adapted = worker.generate(tiny_model, adapter_path=str(adapter))
    base_again = worker.generate(tiny_model)
    # then
    assert base.text == expected(tiny_model, "Why does bread rise?", 12)
    assert base.text == base_again.text != adapted.text
    assert (base.tokens, base.finish) == (12, "length")


def test_an_answer_comes_in_pieces(worker: Worker, tiny_model: Path) -> None:
    pieces, answer = worker.answer(worker.ask(tiny_model, max_new_tokens=30))
    assert len(pieces) > 5
    assert answer.text == "".join(pieces)


def test_a_seed_makes_a_sampled_answer_repeatable(worker: Worker, tiny_model: Path) -> None:
    first, second, other = (
        worker.generate(tiny_model, temperature=1.5, seed=seed, max_new_tokens=20) for seed in (7, 7, 8)
    )
    assert first.text == second.text != other.text


def test_the_deadline_ends_an_answer(worker: Worker, tiny_model: Path) -> None:
    answer = worker.generate(tiny_model, max_new_tokens=200, deadline_seconds=0.0)
    assert (answer.finish, answer.tokens) == ("deadline", 1)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"no json", "DecodeError"),
        (b'{"id": -1, "prompt": "half a request"}', "ValidationError"),
    ],
)
def test_a_bad_line_is_answered_and_the_worker_lives_on(
    line: bytes, kind: str, worker: Worker, tiny_model: Path
) -> None:
    # when
    worker.send(line)
    # then
    _, failed = worker.answer(-1)
    assert isinstance(failed, wire.GenerationFailed)
    assert failed.kind == kind
    assert worker.generate(tiny_model).tokens == 12


def test_what_cannot_be_answered_says_why(worker: Worker, tiny_model: Path, tmp_path: Path) -> None:
    for changes, kind in (
        ({"model_path": str(tmp_path)}, "ModelUnavailable"),
        ({"model_path": "nobody/no-such-model"}, "ModelUnavailable"),
        ({"adapter_path": str(tmp_path)}, "ModelUnavailable"),
        ({"prompt": "long " * 400}, "PromptTooLong"),
    ):
        _, failed = worker.answer(worker.ask(tiny_model, **changes))
        assert isinstance(failed, wire.GenerationFailed)
        assert failed.kind == kind


def test_the_worker_ends_with_its_stdin_in_the_middle_of_an_answer(tiny_model: Path, tmp_path: Path) -> None:
    # given
    worker = Worker(tmp_path / "stderr.log", cold=True)
    worker.ask(tiny_model, max_new_tokens=200, deadline_seconds=1e6)
    assert isinstance(DECODER.decode(worker.stdout.readline()), wire.Token)
    # when its stdin is closed
    code = worker.end()
    # then
    assert code == 0
