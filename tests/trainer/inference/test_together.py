"""Answers that are written together are those that each has alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.inference_process import DECODER, Worker
from support.tiny_model import build_tiny, build_tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from trainer_entry import wire
from trainer_entry.inference import models, writing
from trainer_entry.inference.answers import Answer
from trainer_entry.inference.batch import Batch, can_join
from trainer_entry.inference.token_bytes import TokenBytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.training,
    # peft reads a name that this release of transformers has deprecated.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
PROMPTS = ("Why does bread rise?", "Rice", "What is blanching? " * 12, "How do I cook rice? Rinse it.")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(tmp_path_factory.mktemp("worker") / "stderr.log")
    yield running
    assert running.end() == 0


def adapter(model: Path, folder: Path, seed: int, **options: Any) -> Path:
    """An adapter that changes what the model says."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear", init_lora_weights=False, lora_alpha=64, **options
    )
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)
    return folder


def sliding(folder: Path) -> Path:
    """A model that looks back over 8 tokens only."""
    build_tiny_model(folder)
    torch.manual_seed(0)
    config = AutoModelForCausalLM.from_pretrained(folder).config
    small = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    MistralForCausalLM(
        MistralConfig(vocab_size=config.vocab_size, intermediate_size=64, sliding_window=8, **small)
    ).save_pretrained(folder)
    return folder


def long_rope(folder: Path) -> Path:
    """A model whose positions turn in another way in texts of more than 32 tokens."""
    build_tiny_model(folder)
    config = AutoConfig.from_pretrained(folder)
    factors = {"short_factor": [1.0] * 8, "long_factor": [8.0] * 8, "original_max_position_embeddings": 32}
    config.rope_parameters = {"rope_type": "longrope", "rope_theta": 10_000.0, **factors}
    config.initializer_range = 0.5  # so that it looks at positions
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def told(worker: Worker, asked: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    """What is answered to requests that are there at once."""
    requests = [worker.ask(model, **changes) for model, changes in asked]
    heard = worker.answers(*requests)
    texts = []
    for request in requests:
        _, answer = heard[request]
        assert isinstance(answer, wire.Generated), answer
        texts.append(answer.text)
    return texts


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "sliding", "longrope"])
def test_an_answer_in_company_is_the_one_alone(architecture: str, worker: Worker, tmp_path: Path) -> None:
    # given prompts and answers of different lengths, greedy and sampled ones
    match architecture:
        case "gpt2" | "qwen2":
            model = build_tiny(tmp_path, architecture, context=256)  # type: ignore[arg-type]
        case "sliding":
            model = sliding(tmp_path)
        case "longrope":
            model = long_rope(tmp_path)
        case _:
            model = build_tiny_model(tmp_path)
    asked: list[tuple[Path, dict[str, Any]]] = [
        (model, {"prompt": prompt, "max_new_tokens": 8 + 7 * at, "temperature": temperature, "seed": at, "top_p": 0.9})
        for temperature in (0.0, 1.2)
        for at, prompt in enumerate(PROMPTS)
    ]
    # when
    company = told(worker, asked)
    # then
    assert company == [told(worker, [one])[0] for one in asked]
    assert len(set(company)) > 5


def test_the_first_of_them_is_what_transformers_says(worker: Worker, tiny_model: Path) -> None:
    # given
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_model), AutoModelForCausalLM.from_pretrained(tiny_model)
    ids = tokenizer(PROMPTS[2], return_tensors="pt")["input_ids"]
    output = model.generate(ids, max_new_tokens=20, do_sample=False)
    # when
    asked = [(tiny_model, {"prompt": prompt, "verbatim": True, "max_new_tokens": 20}) for prompt in PROMPTS]
    # then
    assert told(worker, asked)[2] == tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def test_adapters_of_one_base_are_asked_together(worker: Worker, tiny_model: Path, tmp_path: Path) -> None:
    # given two that peft mixes in a batch, one that it does not, and the base alone
    adapters = [
        adapter(tiny_model, tmp_path / "one", 1),
        adapter(tiny_model, tmp_path / "two", 2, r=4),
        adapter(tiny_model, tmp_path / "dora", 3, use_dora=True),
    ]
    paths = [None, *map(str, adapters), None, str(adapters[0])]
    asked = [(tiny_model, {"adapter_path": path, "max_new_tokens": 15}) for path in paths]
    # when
    company = told(worker, asked)
    # then
    assert company == [told(worker, [one])[0] for one in asked]
    assert len(set(company)) == 4
    assert (company[0], company[1]) == (company[4], company[5])


def test_who_comes_later_joins_and_does_not_wait(worker: Worker, tiny_model: Path) -> None:
    # given an answer that is on its way
    never = {"logit_bias": {2: -100.0, 4: -100.0}}
    long = worker.ask(tiny_model, max_new_tokens=200, **never)
    assert isinstance(DECODER.decode(worker.stdout.readline()), wire.Token)
    # when
    short = worker.ask(tiny_model, max_new_tokens=2)
    # then
    last: list[int] = []
    while len(last) < 2:
        message = DECODER.decode(worker.stdout.readline())
        if isinstance(message, wire.Generated):
            last.append(message.id)
    assert last == [short, long]


def test_another_models_request_waits_and_keeps_those_after_it_behind(
    worker: Worker, tiny_model: Path, tmp_path: Path
) -> None:
    # given
    other = build_tiny_model(tmp_path, seed=5)
    requests = [worker.ask(model, max_new_tokens=20) for model in (tiny_model, other, tiny_model, other)]
    # when
    order = []
    while len(order) < len(requests):
        message = DECODER.decode(worker.stdout.readline())
        if isinstance(message, wire.Generated):
            order.append(message.id)
    # then
    assert order == requests


class Written:
    """What is sent, in place of a pipe."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    def write(self, message: wire.AnyWorkerMessage) -> None:
        if not isinstance(message, wire.Token):
            assert isinstance(message, wire.Generated), message
            self.texts[message.id] = message.text


@pytest.mark.parametrize("cause", ["caches", "memory"])
def test_answers_without_room_together_are_read_anew_and_are_the_same(
    cause: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(models, "limit_memory", lambda _more: None)
    kept = models.Models()
    loaded = kept.load(str(tiny_model), "text-generation")
    assert can_join(loaded, kept)
    spelling, step, most = TokenBytes(loaded.tokenizer), Batch.step, 0

    def step_in_little_memory(batch: Batch) -> None:
        nonlocal most
        if cause == "memory" and len(batch.rows) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")
        step(batch)
        most = max(most, len(batch.rows))

    def write_all() -> dict[int, str]:
        lines, together = Written(), writing.Writing(loaded, kept)
        left = len(PROMPTS)
        for number, prompt in enumerate(PROMPTS):
            request = wire.Generate(
                id=number,
                model_path=str(tiny_model),
                adapter_path=None,
                prompt=prompt,
                max_new_tokens=20,
                temperature=1.0,
                top_p=0.9,
                seed=number,
            )
            together.add(Answer(request, loaded, spelling, lines))  # type: ignore[arg-type]
        while left:
            for answer in together.advance():
                answer.end()
                left -= 1
        return lines.texts

    plain = write_all()
    # when
    monkeypatch.setattr(Batch, "step", step_in_little_memory)
    if cause == "caches":
        monkeypatch.setattr(writing, "_CACHE_BYTES", 60_000)
    # then
    assert write_all() == plain
    assert 1 < most <= 3
