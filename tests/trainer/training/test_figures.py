"""Every figure is the number that it is called, however the records fall into batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import torch
from support import task_records
from support.tiny_model import build_tiny
from support.trainer_attempts import job_of, questions, write_dataset
from transformers import AutoConfig, AutoModelForCausalLM

from trainer_entry import wire
from trainer_entry.data.records import Records
from trainer_entry.providers import huggingface
from trainer_entry.runtime.failures import ConflictingParameters
from trainer_entry.strategies import dpo, sft
from trainer_entry.tasks import preferences, question_answering, summarization, text_generation
from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model
from trainer_entry.training.outcome import Reported, final_figures
from trainer_entry.training.trainer import trained_model

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.data.examples import Examples
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.training.trainer import AttemptTrainer

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

ANSWERS: wire.Task = "extractive-question-answering"
HELD_OUT = frozenset(range(7))
RAN = [{"per_device_train_batch_size": size} for size in (1, 4, 7)]


def trainer_of(
    folder: Path, model: Path, examples: Examples, loaded: LoadedModel, task: wire.Task, **asked: Any
) -> AttemptTrainer:
    strategy: wire.Strategy = asked.pop("strategy", "sft")
    parameters = wire.TrainingParameters(**{"eval_split": 0.5, "max_seq_length": 128, **asked})
    job = job_of(parameters, task=task, strategy=strategy, model_path=str(model), checkpoint_dir=str(folder))
    parameters = with_model(resolve_parameters(job), job, loaded.context, encoder_decoder=loaded.is_encoder_decoder)
    parameters = with_evaluation(parameters, len(examples.train), examples.tokens)
    build = dpo.build_trainer if strategy == "dpo" else sft.build_trainer
    return build(job, loaded, examples, parameters)


def figures(trainer: AttemptTrainer) -> list[float]:
    """The loss and the rewards that an evaluation reports, as they are logged."""
    trainer.evaluate()
    told = trainer.state.log_history[-1]
    return [float(told[name]) for name in sorted(told) if name == "eval_loss" or "rewards/" in name]


def mean_by_token(loaded: LoadedModel, examples: Examples) -> float:
    """The truth: each record alone, and its tokens counted by hand."""
    total, tokens = 0.0, 0
    assert examples.evaluation is not None
    for row in examples.evaluation:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.no_grad():
            if loaded.is_encoder_decoder:
                logits, wanted = loaded.model(input_ids=ids, labels=labels[None]).logits[0], labels
            else:
                logits, wanted = loaded.model(input_ids=ids).logits[0, :-1], labels[1:]
        total += float(torch.nn.functional.cross_entropy(logits.double(), wanted, reduction="sum"))
        tokens += int((wanted != -100).sum())
    return total / tokens


@pytest.mark.parametrize("ran", [*RAN, {"packing": True, "per_device_train_batch_size": 2}], ids=str)
def test_a_loss_on_held_out_records_is_the_mean_over_their_tokens(
    ran: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    records = Records(write_dataset(tmp_path / "questions.jsonl", questions(16)))
    loaded = huggingface.load(str(tiny_model), torch.float32, None)
    examples = text_generation.prepare(records, HELD_OUT, loaded.tokenizer, 128)
    truth = mean_by_token(loaded, examples)
    trainer = trainer_of(tmp_path / "out", tiny_model, examples, loaded, "text-generation", use_lora=False, **ran)
    assert figures(trainer) == pytest.approx([truth], abs=1e-5)


@pytest.mark.parametrize("kind", ["opt", "mamba"])
def test_a_model_that_cannot_keep_packed_records_apart_is_refused(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    records = Records(write_dataset(tmp_path / "questions.jsonl", questions(16)))
    loaded = huggingface.load(str(tiny_model), torch.float32, None)
    examples = text_generation.prepare(records, HELD_OUT, loaded.tokenizer, 128)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}
    config = AutoConfig.for_model(kind, vocab_size=len(loaded.tokenizer), word_embed_proj_dim=32, **sizes)
    loaded = msgspec.structs.replace(loaded, model=AutoModelForCausalLM.from_config(config))
    with pytest.raises(ConflictingParameters, match=f"models of type {kind}"):
        trainer_of(tmp_path / "out", tiny_model, examples, loaded, "text-generation", use_lora=False, packing=True)


@pytest.mark.parametrize("ran", RAN, ids=str)
def test_the_same_of_summaries_by_an_encoder_decoder(ran: dict[str, Any], tmp_path: Path) -> None:
    model = build_tiny(tmp_path / "model", "t5")
    records = Records(write_dataset(tmp_path / "summaries.jsonl", task_records.summaries(16)))
    loaded = huggingface.load(str(model), torch.float32, None, "summarization")
    examples = summarization.prepare(records, HELD_OUT, loaded.model.config, loaded.tokenizer, 128)
    truth = mean_by_token(loaded, examples)
    trainer = trainer_of(tmp_path / "out", model, examples, loaded, "summarization", use_lora=False, **ran)
    assert figures(trainer) == pytest.approx([truth], abs=1e-5)


def test_the_same_of_answers_in_a_context_and_of_preferences(tmp_path: Path) -> None:
    bert, causal = build_tiny(tmp_path / "bert", "bert"), build_tiny(tmp_path / "qwen2", "qwen2")
    asked = Records(write_dataset(tmp_path / "questions.jsonl", task_records.questions(16)))
    preferred = Records(write_dataset(tmp_path / "preferences.jsonl", task_records.preferences(16)))
    answers, pairs = [], []
    for place, ran in enumerate(RAN):
        torch.manual_seed(0)  # of the head, which is new
        loaded = huggingface.load(str(bert), torch.float32, None, ANSWERS)
        examples = question_answering.prepare(asked, HELD_OUT, loaded.tokenizer, 128, 32)
        answers.append(
            figures(trainer_of(tmp_path / f"{place}", bert, examples, loaded, ANSWERS, use_lora=False, **ran))
        )

        loaded = huggingface.load(str(causal), torch.float32, None)
        examples = preferences.prepare(preferred, HELD_OUT, loaded.tokenizer, ("text-generation", "dpo"), 128, "right")
        trainer = trainer_of(
            tmp_path / f"{place}-dpo", causal, examples, loaded, "text-generation", strategy="dpo", **ran
        )
        for name, values in trained_model(trainer).named_parameters():
            if "lora_B" in name:  # an adapter that changes something
                torch.nn.init.normal_(values, std=0.1, generator=torch.Generator().manual_seed(1))
        pairs.append(figures(trainer))
    assert (len(answers[0]), len(pairs[0])) == (1, 5)
    assert answers[1:] == [pytest.approx(answers[0], abs=1e-5)] * 2
    assert pairs[1:] == [pytest.approx(pairs[0], abs=1e-5)] * 2


def report(step: int, epoch: float, loss: float, tokens: float | None = None, **more: float) -> Reported:
    return Reported(
        step=step,
        epoch=epoch,
        figures={"loss": loss, **more},
        token_loss=None if tokens is None else loss,
        tokens=tokens,
    )


def test_a_final_figure_is_that_of_the_last_epoch() -> None:
    told = [report(step, step / 4, 9.0 if step <= 8 else float(step)) for step in range(1, 13)]
    assert final_figures(told) == {"final_loss": (9 + 10 + 11 + 12) / 4}


def test_or_of_the_last_twenty_steps_where_an_epoch_is_longer() -> None:
    told = [report(step, step / 100, 9.0 if step <= 40 else 1.0, reward=step) for step in range(1, 61)]
    assert final_figures(told) == {"final_loss": 1.0, "final_reward": sum(range(41, 61)) / 20}


def test_reports_of_several_steps_count_as_many() -> None:
    told = [report(15, 0.1, 8.0), report(30, 0.2, 5.0), report(40, 0.3, 2.0)]
    assert final_figures(told) == {"final_loss": (15 * 5 + 10 * 2) / 25}


def test_a_loss_of_tokens_is_weighed_by_them() -> None:
    told = [report(1, 0.5, 4.0, tokens=30), report(2, 1.0, 1.0, tokens=10)]
    assert final_figures(told) == {"final_loss": (4 * 30 + 1 * 10) / 40}


def test_what_was_not_reported_has_no_end() -> None:
    assert final_figures([]) == {}
    assert not any(math.isnan(figure) for figure in final_figures([report(1, 1, 2.0)]).values())
