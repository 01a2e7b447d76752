"""Adapters of every kind of model put into the weights of their bases, and the cards of what is pushed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.tiny_model import build_tiny_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertForQuestionAnswering,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from trainer_entry import wire
from trainer_entry.artifacts.merge import merge, merge_layers
from trainer_entry.artifacts.push import hub_card
from trainer_entry.runtime.failures import NotMergeable
from trainer_entry.runtime.progress import Progress
from trainer_entry.runtime.signals import Signals
from trainer_entry.runtime.stdout import LineWriter, Wire

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
VOCABULARY = 402


def give_adapter(base: Path, model: PreTrainedModel, folder: Path, **config: Any) -> Path:
    """A base on disk, and an adapter of it with weights that change what it computes."""
    model.save_pretrained(base)
    torch.manual_seed(1)
    adapted: PeftModel = get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, **config))  # type: ignore[assignment]
    adapted.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def merged(
    base: Path, adapter: Path, dataset: wire.DatasetFile, task: wire.Task = "text-generation"
) -> wire.SavedModel:
    job = wire.JobSpec(
        job_id="train_000009",
        task=task,
        strategy="sft",
        provider="huggingface",
        model_name="tiny",
        model_path=str(base),
        dataset=dataset,
        parameters=wire.TrainingParameters(),
        output_name="cook-merged",
        output_dir=str(adapter.with_name("merged")),
        checkpoint_dir="",
        work=wire.Merge(model_id=1, name="cook", path=str(adapter)),
    )
    spec = wire.AttemptSpec(job=job, attempt=1, token="ours", cpu_threads=1)  # noqa: S106 - no secret
    descriptor = os.open(adapter.with_name("spool"), os.O_CREAT | os.O_WRONLY)
    progress = Progress(
        Wire(LineWriter(descriptor), speaks=True), 1, Signals(before_training=lambda: None, left_alone=lambda: False)
    )
    assert isinstance(job.work, wire.Merge)
    return merge(spec, job.work, progress)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "base")


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft warns of what is tested here
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_of_tied_embeddings_changes_only_the_end_that_it_is_on(
    base: Path, tmp_path: Path, dataset: wire.DatasetFile, target: str
) -> None:
    config = AutoModelForCausalLM.from_pretrained(base).config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    adapter = give_adapter(
        base, LlamaForCausalLM(config), tmp_path / "adapter", task_type="CAUSAL_LM", target_modules=["q_proj", target]
    )
    made = merged(base, adapter, dataset)
    tokens = torch.tensor([[5, 80, 17, 200, 33]])
    with torch.no_grad():
        adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
        expected = adapted(tokens)
        found = AutoModelForCausalLM.from_pretrained(made.path)(tokens)
        begun = merge_layers(adapted, torch.float32)(tokens)  # as a training of all weights does
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(begun.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_a_question_answering_adapter_brings_its_head(base: Path, tmp_path: Path, dataset: wire.DatasetFile) -> None:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    model = BertForQuestionAnswering(config)
    adapter = give_adapter(
        base, model, tmp_path / "adapter", task_type="QUESTION_ANS", target_modules=["query"],
        modules_to_save=["qa_outputs"],
    )  # fmt: skip
    # as it is of a base that has no such head: it comes with the adapter alone
    model.bert.save_pretrained(base)
    made = merged(base, adapter, dataset, "extractive-question-answering")
    tokens = torch.tensor([[5, 80, 17, 200, 33]])
    with torch.no_grad():
        on_base = AutoModelForQuestionAnswering.from_pretrained(base)
        expected = PeftModel.from_pretrained(on_base, str(adapter)).eval()(tokens)
        found = AutoModelForQuestionAnswering.from_pretrained(made.path)(tokens)
    torch.testing.assert_close(found.start_logits, expected.start_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.end_logits, expected.end_logits, rtol=1e-4, atol=1e-4)


def test_a_summarization_adapter_is_merged_too(base: Path, tmp_path: Path, dataset: wire.DatasetFile) -> None:
    config = T5Config(
        vocab_size=VOCABULARY, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    adapter = give_adapter(base, model, tmp_path / "adapter", task_type="SEQ_2_SEQ_LM", target_modules=["q", "v"])
    made = merged(base, adapter, dataset, "summarization")
    tokens = torch.tensor([[5, 80, 17, 200, 33]])
    with torch.no_grad():
        on_base = AutoModelForSeq2SeqLM.from_pretrained(base)
        expected = PeftModel.from_pretrained(on_base, str(adapter)).eval()(input_ids=tokens, labels=tokens)
        found = AutoModelForSeq2SeqLM.from_pretrained(made.path)(input_ids=tokens, labels=tokens)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-4)


def test_weights_keep_the_type_that_the_base_has_on_disk(base: Path, tmp_path: Path, dataset: wire.DatasetFile) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapter = give_adapter(base, model, tmp_path / "adapter", task_type="CAUSAL_LM", target_modules=["q_proj"])
    made = merged(base, adapter, dataset)
    assert AutoModelForCausalLM.from_pretrained(made.path).dtype == torch.bfloat16


def test_weights_that_are_no_numbers_are_not_saved(base: Path, tmp_path: Path, dataset: wire.DatasetFile) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight[0, 0] = float("nan")
    adapter = give_adapter(base, model, tmp_path / "adapter", task_type="CAUSAL_LM", target_modules=["q_proj"])
    with pytest.raises(NotMergeable):
        merged(base, adapter, dataset)
    assert not adapter.with_name("merged").exists()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("/home/me/base", None),
        ("base", "base"),
        ("owner/base", "owner/base"),
        (wire.BUILT_IN_MODEL, "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_a_pushed_card_names_only_what_the_hub_knows(name: str, kept: str | None) -> None:
    card = f'---\nbase_model: "{name}"\nlibrary_name: peft\ndatasets:\n- "mine.jsonl"\ntags:\n- lora\n---\n\n# It\n'
    head = "" if kept is None else f'base_model: "{kept}"\n'
    assert hub_card(card) == f"---\n{head}library_name: peft\ntags:\n- lora\n---\n\n# It\n"


def test_a_card_without_a_head_is_pushed_as_it_is() -> None:
    assert hub_card("# It\n\n---\n\nbase_model: /home\n") == "# It\n\n---\n\nbase_model: /home\n"
