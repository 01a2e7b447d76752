"""What a training would fail at is found before it is started, by the code that trains, without the weights."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.tiny_model import build_tiny, build_tiny_model
from support.trainer_attempts import job_of, write_dataset

from trainer_entry import wire
from trainer_entry.dataset_view import answer
from trainer_entry.runtime.failures import (
    ChatTemplateFails,
    NoChatTemplate,
    NoSuchLayers,
    NoTrainableTokens,
    NotTrainedWhole,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
PLAIN = {"input": "Hello", "output": "Hi"}
REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
)


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": f"I am {role} {place}."} for place, role in enumerate(roles)]}


def tried(model: Path, path: Path, records: list[dict[str, Any]], **values: Any) -> wire.Trial:
    strategy = values.pop("strategy", "sft")
    job = job_of(
        wire.TrainingParameters(**values),
        strategy=strategy,
        model_path=str(model),
        dataset=write_dataset(path / "data.jsonl", records),
    )
    found = answer(wire.TrialRequest(job=job, revision=0, deadline_seconds=60, sample=4))
    assert isinstance(found, wire.Trial)
    return found


@pytest.fixture
def strict(tiny_model: Path, tmp_path: Path) -> Path:
    return strict_model(tiny_model, tmp_path / "strict", REFUSES_SYSTEM + ALTERNATES)


def strict_model(base: Path, folder: Path, refuses: str) -> Path:
    """A copy of a model whose chat template refuses some conversations."""
    shutil.copytree(base, folder)
    template = folder / "chat_template.jinja"
    template.write_text(refuses + template.read_text())
    return folder


def test_what_a_template_takes_passes(strict: Path, tmp_path: Path) -> None:
    repeated = turns("user", "user", "assistant")  # are made one, as in a training
    assert tried(strict, tmp_path, [PLAIN] * 3).records == 3
    assert tried(strict, tmp_path, [turns("user", "assistant"), repeated]).records == 2


@pytest.mark.parametrize(
    ("records", "line", "says"),
    [
        ([turns("user", "assistant"), turns("system", "user", "assistant")], 2, "System role not supported"),
        ([turns("assistant", "user", "assistant")], 1, "Conversation roles must alternate"),
        ([PLAIN, {**PLAIN, "system": "Be brief."}], 2, "System role not supported"),
        ([{**PLAIN, "system": ""}] * 99 + [{**PLAIN, "system": "Be brief."}] * 101, 101, "System role not supported"),
    ],
    ids=["system", "alternating", "system-beside-a-prompt", "far-down"],
)
def test_what_a_template_refuses_is_named_by_its_line(
    records: list[dict[str, Any]], line: int, says: str, strict: Path, tmp_path: Path
) -> None:
    with pytest.raises(ChatTemplateFails, match=f"^Line {line} of the dataset: .*{says}"):
        tried(strict, tmp_path, records)


def test_preferences_with_several_turns_need_a_template(tmp_path: Path) -> None:
    asked = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "?"},
    ]
    preference = {"prompt": asked, "chosen": "So.", "rejected": "No."}
    with pytest.raises(NoChatTemplate):
        tried(build_tiny_model(tmp_path / "m", chat_template=None), tmp_path, [preference], strategy="dpo")


def test_records_that_all_have_nothing_to_learn_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(NoTrainableTokens, match="Line 1: There is no answer within its first 4 tokens"):
        tried(tiny_model, tmp_path, [PLAIN] * 3, max_seq_length=4)


@pytest.mark.parametrize("target", ["q_proj", ("q_proj", "v_proj"), r".*layers\.0\..*_proj", "all-linear"])
def test_layers_that_are_there_pass(target: Any, tiny_model: Path, tmp_path: Path) -> None:
    assert tried(tiny_model, tmp_path, [PLAIN], target_modules=target).records == 1


def test_modules_that_are_trained_whole_are_found_by_the_ends_of_their_names(tiny_model: Path, tmp_path: Path) -> None:
    there = ("lm_head", "layers.0.mlp", "norm")
    assert tried(tiny_model, tmp_path, [PLAIN], modules_to_save=there, init_lora_weights="pissa").records == 1
    with pytest.raises(NotTrainedWhole, match=r"modules_to_save 'proj'.* q_proj"):
        tried(tiny_model, tmp_path, [PLAIN], modules_to_save=("proj",))
    with pytest.raises(NotTrainedWhole, match="has nothing that could be trained"):
        tried(tiny_model, tmp_path, [PLAIN], modules_to_save=("rotary_emb",))


@pytest.mark.parametrize("name", ["wte", "lm_head"])
def test_embeddings_that_peft_does_not_train_as_one_with_the_output_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotTrainedWhole, match=r"wte and lm_head have the same weights"):
        tried(build_tiny(tmp_path / "gpt2", "gpt2"), tmp_path, [PLAIN], modules_to_save=(name,))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("c_attn.*", "not found"),
        ("(", "unterminated"),
        (("input_layernorm",), "is not supported"),
        (("q_proj", "lm_head"), "the layer that gives the output"),
    ],
)
def test_layers_that_no_adapter_can_be_put_on_are_refused(
    target: Any, says: str, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoSuchLayers, match=says):
        tried(tiny_model, tmp_path, [PLAIN], target_modules=target)
