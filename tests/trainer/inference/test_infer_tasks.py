"""The playground's worker: summaries, and answers that stand in a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.inference_process import Worker
from support.tiny_model import Architecture, build_tiny
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from trainer_entry import wire
from trainer_entry.providers.huggingface import decoder_positions, load, model_class
from trainer_entry.runtime.failures import ModelUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.training,
    # peft reads a name that this release of transformers has deprecated.
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
DOCUMENT = "Yeast fills the dough with tiny bubbles of gas. Boil food very briefly, then cool it in ice water."
ENCODER_DECODERS: list[Architecture] = ["t5", "bart", "encoder-decoder"]
ANSWERERS: list[Architecture] = ["bert", "distilbert", "roberta", "t5", "bart", "gpt2", "qwen2"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Path]:
    folder = tmp_path_factory.mktemp("architectures")
    folders: dict[str, Path] = {}

    def build(architecture: Architecture) -> Path:
        if architecture not in folders:
            folders[architecture] = build_tiny(folder / architecture, architecture)
        return folders[architecture]

    return build


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    running = Worker(tmp_path_factory.mktemp("worker") / "stderr.log")
    yield running
    assert running.end() == 0


def summarize(worker: Worker, model: Path, **changes: Any) -> wire.Generated:
    return worker.generate(model, **({"task": "summarization", "prompt": DOCUMENT} | changes))


def find(worker: Worker, model: Path, **changes: Any) -> wire.Generated:
    fields = {"task": "extractive-question-answering", "prompt": "What fills the dough?", "context": DOCUMENT}
    return worker.generate(model, **(fields | changes))


def refusal(worker: Worker, model: Path, **changes: Any) -> wire.GenerationFailed:
    _, failed = worker.answer(worker.ask(model, **changes))
    assert isinstance(failed, wire.GenerationFailed), failed
    return failed


@pytest.mark.parametrize("architecture", ENCODER_DECODERS)
def test_an_encoder_decoder_summarizes_as_transformers_does(
    architecture: Architecture, worker: Worker, built: Callable[[Architecture], Path]
) -> None:
    # given
    folder = built(architecture)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    source = f"summarize: {DOCUMENT}" if architecture == "t5" else DOCUMENT
    ids = tokenizer(source, return_tensors="pt")["input_ids"]
    output = model.generate(ids, max_new_tokens=12, do_sample=False)
    # when
    answer = summarize(worker, folder)
    # then
    assert answer.text == tokenizer.decode(output[0], skip_special_tokens=True) != ""
    assert answer.tokens == output.shape[1] - 1
    assert (answer.score, answer.start, answer.end) == (None, None, None)


def test_a_models_beams_and_least_length_do_not_apply(
    worker: Worker, built: Callable[[Architecture], Path], tmp_path: Path
) -> None:
    # given a model that comes with the settings of its authors
    model = AutoModelForSeq2SeqLM.from_pretrained(built("bart"))
    model.generation_config.num_beams = 4
    model.generation_config.early_stopping = True
    model.generation_config.min_length = 20
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.forced_eos_token_id = 2
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(built("bart")).save_pretrained(tmp_path)
    # when
    plain, answer = summarize(worker, built("bart")), summarize(worker, tmp_path)
    # then
    assert (answer.text, answer.tokens, answer.finish) == (plain.text, plain.tokens, plain.finish)


def test_a_document_that_the_encoder_cannot_read_whole_is_refused(
    worker: Worker, built: Callable[[Architecture], Path]
) -> None:
    for architecture in ENCODER_DECODERS:
        failed = refusal(worker, built(architecture), task="summarization", prompt="long " * 1500)
        assert failed.kind == "PromptTooLong"
    # the answer's room is the decoder's own, whatever the document takes of the encoder's
    tokenizer = AutoTokenizer.from_pretrained(built("bart"))
    document = tokenizer.decode(tokenizer("rice " * 200)["input_ids"][1:127])
    assert summarize(worker, built("bart"), prompt=document, max_new_tokens=500).tokens <= 127


def test_an_adapter_summarizes_otherwise_than_its_base(
    worker: Worker, built: Callable[[Architecture], Path], tmp_path: Path
) -> None:
    # given
    torch.manual_seed(1)
    config = LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"], init_lora_weights=False, lora_alpha=64)
    get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(built("t5")), config).save_pretrained(tmp_path)
    # when
    base = summarize(worker, built("t5"))
    adapted = summarize(worker, built("t5"), adapter_path=str(tmp_path))
    # then
    assert summarize(worker, built("t5")).text == base.text != adapted.text


def test_a_causal_model_is_asked_for_a_summary_in_words(worker: Worker, tiny_model: Path) -> None:
    asked = worker.generate(tiny_model, prompt=f"Summarize the following text.\n\n{DOCUMENT}")
    assert summarize(worker, tiny_model).text == asked.text


@pytest.mark.parametrize("architecture", ANSWERERS)
def test_every_architecture_with_a_head_for_it_finds_a_span(
    architecture: Architecture, worker: Worker, built: Callable[[Architecture], Path]
) -> None:
    answer = find(worker, built(architecture))
    assert answer.score is not None
    assert 0 <= answer.score <= 1
    if answer.start is None:
        assert (answer.text, answer.end, answer.tokens) == ("", None, 0)
    else:
        assert answer.text == DOCUMENT[answer.start : answer.end]
        assert 0 < answer.tokens <= 12


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory, built: Callable[[Architecture], Path]) -> Path:
    """A BERT whose likeliest answer is the word "ice", wherever it stands."""
    folder = tmp_path_factory.mktemp("answering") / "model"
    tokenizer = AutoTokenizer.from_pretrained(built("bert"))
    torch.manual_seed(0)
    model = AutoModelForQuestionAnswering.from_pretrained(built("bert"))
    place, ends = tokenizer.get_vocab()["ice"], model.bert.embeddings.LayerNorm
    with torch.no_grad():
        for layer in model.bert.encoder.layer:  # leave every token as it is
            for part in (layer.attention.output, layer.output):
                part.dense.weight.zero_()
                part.dense.bias.zero_()
        model.bert.embeddings.position_embeddings.weight.zero_()
        model.bert.embeddings.token_type_embeddings.weight.zero_()
        model.qa_outputs.weight[:] = 10 * ends(model.bert.embeddings.word_embeddings.weight[place])
        model.qa_outputs.bias.zero_()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_answer_is_found_with_its_place(worker: Worker, answering: Path) -> None:
    answer = find(worker, answering)
    place = DOCUMENT.index("ice water")
    assert (answer.text, answer.start, answer.end) == ("ice", place, place + 3)
    assert answer.score > 0.9
    assert (answer.tokens, answer.finish) == (1, "stop")


def test_an_answer_far_into_a_long_context_is_found(worker: Worker, answering: Path) -> None:
    context = "Rinse the rice. " * 200 + "Then cool it in ice water." + " Boil the rice." * 200
    answer = find(worker, answering, context=context)
    assert (answer.text, answer.start) == ("ice", context.index("ice water"))
    # and in less than the time for all of it, what was read until then must do
    cut = find(worker, answering, context=context, deadline_seconds=0.0)
    assert cut.finish == "deadline"
    assert cut.text != "ice"


def test_an_adapter_answers_otherwise_than_its_base(
    worker: Worker, built: Callable[[Architecture], Path], tmp_path: Path
) -> None:
    # given
    torch.manual_seed(1)
    config = LoraConfig(task_type="QUESTION_ANS", target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(AutoModelForQuestionAnswering.from_pretrained(built("bert")), config)
    with torch.no_grad():
        adapted.base_model.model.qa_outputs.modules_to_save["default"].weight.mul_(-50)
    adapted.save_pretrained(tmp_path)
    # when
    base = find(worker, built("bert"))
    with_adapter = find(worker, built("bert"), adapter_path=str(tmp_path))
    base_again = find(worker, built("bert"))
    # then
    assert (base.text, base.score) == (base_again.text, base_again.score)
    assert base.score != with_adapter.score


def test_one_folder_serves_every_task_that_it_has_a_head_for(
    worker: Worker, built: Callable[[Architecture], Path]
) -> None:
    said = worker.generate(built("qwen2"))
    assert find(worker, built("qwen2")).score is not None
    assert worker.generate(built("qwen2")).text == said.text


def test_a_model_without_a_form_for_the_task_is_refused(worker: Worker, built: Callable[[Architecture], Path]) -> None:
    for architecture, task, word in (
        ("bert", "text-generation", "encoder"),
        ("roberta", "summarization", "encoder"),
        ("distilbert", "text-generation", "causal"),
        ("t5", "text-generation", "encoder-decoder"),
        ("encoder-decoder", "extractive-question-answering", "BERT"),
    ):
        failed = refusal(worker, built(architecture), task=task, context="Rice.")
        assert failed.kind == "ModelUnavailable"
        assert word in failed.message


def test_an_encoder_that_was_made_a_decoder_writes(built: Callable[[Architecture], Path]) -> None:
    config = AutoConfig.from_pretrained(built("bert"))
    with pytest.raises(ModelUnavailable):
        model_class(config, "text-generation")
    config.is_decoder = True
    assert model_class(config, "text-generation") is AutoModelForCausalLM


@pytest.mark.parametrize(
    ("architecture", "task", "reads", "writes"),
    [
        ("bert", "extractive-question-answering", 128, 128),
        ("roberta", "extractive-question-answering", 128, 128),  # it has 130 positions, two of them for padding
        ("t5", "summarization", 1024, None),
        ("bart", "summarization", 128, 128),
        ("encoder-decoder", "summarization", 128, 128),
        ("gpt2", "text-generation", 128, 128),
    ],
)
def test_how_much_a_model_reads_and_writes(
    architecture: Architecture,
    task: wire.Task,
    reads: int,
    writes: int | None,
    built: Callable[[Architecture], Path],
) -> None:
    loaded = load(str(built(architecture)), torch.float32, None, task)
    assert loaded.context == reads
    assert decoder_positions(loaded.model.config) == writes
