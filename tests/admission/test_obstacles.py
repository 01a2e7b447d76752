"""What a trainer would refuse after its launch, found in a request and in a model's small files."""

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import sysconfig
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.attempt_files import write_model, write_weights
from support.trainer_attempts import job_of

from modelforge.admission import installed
from modelforge.admission.estimate.adapter_problems import adapter_problems
from modelforge.admission.estimate.architecture import Architecture
from modelforge.admission.estimate.obstacles import known_obstacles
from modelforge.admission.estimate.weights import Weight
from modelforge.admission.installed import check_installed
from modelforge.errors import BadInput
from trainer_entry import wire

SIZES = Architecture(hidden=8, layers=1, heads=1, vocabulary=16, intermediate=16, cached=16, context=512)
JUDGE = {"architectures": ["LlamaForSequenceClassification"]}


def found(folder: Path | None = None, records: int = 100, **given: Any) -> list[tuple[str | None, str]]:
    """The fields that are refused, and why."""
    fields = {name: given.pop(name) for name in ("task", "strategy", "provider", "reward_model_path") if name in given}
    dataset = wire.DatasetFile(filename="", path="", sha256="", format="input_output", num_examples=records)
    job = job_of(msgspec.convert(given, wire.TrainingParameters), dataset=dataset, **fields)
    return [(one.field, f"{one.message}. {one.detail}") for one in known_obstacles(job, SIZES, folder)]


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({"records": 1, "eval_split": 0.9}, "eval_split", "one of 1 records"),
        ({"max_seq_length": 1}, "max_seq_length", "Send 2 or more"),
        ({"max_seq_length": 3, "task": "extractive-question-answering"}, "max_seq_length", "Send 4 or more"),
        ({"lr_scheduler_type": "polynomial", "learning_rate": 1e-7}, "learning_rate", "1e-07"),
        ({"strategy": "rlhf", "max_completion_length": 512}, "max_completion_length", "512 tokens"),
        ({"strategy": "rlhf", "seed": 2**32 - 1, "num_processes": 2}, "seed", "4294967294 or less"),
        (
            {"strategy": "rlhf", "records": 5, "per_device_train_batch_size": 32},
            "per_device_train_batch_size",
            "5 prompts",
        ),
        ({"provider": "unsloth", "fp16": True}, "fp16", "on a CPU"),
        ({"provider": "unsloth", "strategy": "qlora", "use_8bit": True}, "use_8bit", "on a CPU"),
        ({"provider": "unsloth", "strategy": "qlora", "use_nested_quant": False}, "provider", "use_nested_quant"),
    ],
)
def test_what_cannot_work_is_refused_by_its_field(
    given: dict[str, Any], field: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ((named, why),) = found(**given)
    assert (named, says in why) == (field, True), why


def test_what_is_just_enough_is_let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found(records=2, eval_split=0.001, max_seq_length=2) == []
    assert (
        found(strategy="rlhf", max_completion_length=511, seed=2**32 - 1, records=8, per_device_train_batch_size=32)
        == []
    )
    assert found(provider="unsloth", strategy="qlora") == []


def test_the_tokenizer_bounds_a_context_too(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    ((field, why),) = found(tmp_path, strategy="rlhf", max_completion_length=64)
    assert (field, "64 tokens" in why) == ("max_completion_length", True)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1e30}')
    assert found(tmp_path, strategy="rlhf", max_completion_length=64) == []


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "llama"}, None),
        ({"model_type": "opt"}, "type opt"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder-decoder"),
    ],
)
def test_records_are_packed_only_where_a_model_knows_them_apart(
    config: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert found(tmp_path) == []
    told = found(tmp_path, packing=True)
    assert [field for field, _ in told] == ([] if says is None else ["packing"])
    assert all(str(says) in why for _, why in told)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"temperature": 0.6, "num_beams": 4, "num_return_sequences": 4}, None),
        ({"do_sample": True, "num_return_sequences": 4}, None),
        ({"num_return_sequences": 4}, "num_return_sequences 4"),
        ({"num_beams": 2, "num_return_sequences": 4}, "num_beams 2"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"early_stopping": "sometimes"}, "'sometimes'"),
        ({"early_stopping": "never"}, None),
    ],
)
def test_generation_settings_that_no_library_takes_are_refused(
    settings: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    from transformers import GenerationConfig

    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(settings))
    told = found(tmp_path)
    if says is None:
        assert told == []
        GenerationConfig.from_pretrained(tmp_path)
    else:
        ((field, why),) = told
        assert (field, says in why) == ("model_name", True), why
        with pytest.raises(ValueError, match=next(iter(settings))):
            GenerationConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("config", "figures"),
    [
        ({**JUDGE, "id2label": {"0": "REWARD"}}, 1),
        ({**JUDGE, "num_labels": 3}, 3),
        ({**JUDGE, "id2label": {"0": "NO", "1": "YES"}}, 2),
        (JUDGE, None),  # its head says it
        ({"architectures": ["LlamaForCausalLM"]}, 0),
    ],
)
def test_a_reward_model_gives_one_figure(config: dict[str, Any], figures: int | None, tmp_path: Path) -> None:
    judge = write_model(tmp_path / "judge", config)
    told = found(strategy="rlhf", reward_model=str(judge), reward_model_path=str(judge))
    if figures is None or figures == 1:
        assert told == []
        write_weights(judge / "model.safetensors", {"score.weight": (5, 8)})
        told, figures = found(strategy="rlhf", reward_model=str(judge), reward_model_path=str(judge)), 5
        if "id2label" in config:  # which wins
            assert told == []
            return
    ((field, why),) = told
    assert (field, f"{figures} figures" in why or "LlamaForCausalLM" in why) == ("reward_model", True), why


@pytest.mark.parametrize(
    ("asked", "config", "field"),
    [
        ({"neftune_noise_alpha": 5.0}, {"is_encoder_decoder": True}, "neftune_noise_alpha"),
        ({"torch_compile": True}, {"is_encoder_decoder": True}, "torch_compile"),
        ({"liger": True}, {"is_encoder_decoder": True}, "liger"),
        ({"init_lora_weights": "olora"}, {"model_type": "gpt2"}, "init_lora_weights"),
    ],
)
def test_what_a_build_of_model_does_not_have_is_refused(
    asked: dict[str, Any], config: dict[str, Any], field: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    ((named, why),) = found(tmp_path, **asked)
    assert named == field
    assert field in why
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert found(tmp_path, **asked) == []


WEIGHTS = (
    Weight("model.embed_tokens.weight", (32, 8)),
    Weight("model.layers.0.mlp.up_proj.weight", (16, 8)),
    Weight("model.layers.0.input_norm.weight", (8,)),
)


@pytest.mark.parametrize(
    ("asked", "field", "says"),
    [
        ({"modules_to_save": ["embeddings"]}, "modules_to_save", "embed_tokens, input_norm, layers"),
        ({"modules_to_save": ["tokens"]}, "modules_to_save", "tokens"),
        ({"modules_to_save": ["mlp"], "use_4bit": True}, "modules_to_save", "up_proj"),
        ({"init_lora_weights": "pissa", "lora_r": 9}, "lora_r", "Send 8 or less"),
        ({"init_lora_weights": "olora", "target_modules": ["embed_tokens"]}, "init_lora_weights", "linear layers"),
    ],
)
def test_what_the_weights_show_of_an_adapter_is_refused(asked: dict[str, Any], field: str, says: str) -> None:
    job = job_of(msgspec.convert(asked, wire.TrainingParameters))
    (problem,) = adapter_problems(job, WEIGHTS, SIZES)
    assert problem.field == field
    assert says in f"{problem.message} {problem.detail}"


def test_what_the_weights_have_is_let_through_and_embeddings_of_two_parts_are_not() -> None:
    whole = ("embed_tokens", "layers.0.mlp", "input_norm", "lm_head")
    asked = job_of(wire.TrainingParameters(modules_to_save=whole, init_lora_weights="olora", lora_r=8))
    assert adapter_problems(asked, WEIGHTS, SIZES) == []
    two = msgspec.structs.replace(SIZES, encoder_decoder=True)
    assert [one.field for one in adapter_problems(asked, WEIGHTS, two)] == ["modules_to_save"]


def test_liger_needs_a_gpu_its_package_and_a_trl_that_keeps_its_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = wire.TrainingParameters(liger=True)

    def refusal() -> str:
        with pytest.raises(BadInput) as found:
            check_installed("huggingface", asked)
        assert found.value.field == "liger"
        return f"{found.value.message} {found.value.detail}"

    monkeypatch.setattr(installed, "visible_gpus", tuple)
    assert "GPU" in refusal()
    monkeypatch.setattr(installed, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "liger_kernel" else object())
    assert "pip install liger-kernel" in refusal()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.14.2")
    assert "trl 1.16" in refusal()
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.16.0")
    check_installed("huggingface", asked)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"liger": True}, "liger"),
        ({"use_vllm": True}, "use_vllm"),
        ({"attn_implementation": "flash_attention_2"}, "attn_implementation"),
    ],
)
def test_a_job_of_the_cluster_needs_gpus_that_it_asks_for_and_none_of_the_server(
    monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], field: str
) -> None:
    monkeypatch.setattr(installed, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.16.0")
    parameters = wire.TrainingParameters(num_processes=2, **asked)
    with pytest.raises(BadInput, match=r"cluster\.gpus_per_node") as refusal:
        check_installed("huggingface", parameters, 0)
    assert refusal.value.field == field
    monkeypatch.setattr(installed, "visible_gpus", tuple)
    check_installed("huggingface", parameters, 2)


def test_what_is_compiled_needs_a_compiler_and_the_headers_of_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = wire.TrainingParameters(torch_compile=True)
    monkeypatch.setattr(installed, "visible_gpus", tuple)
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / "g++").write_text("")
    (tmp_path / "g++").chmod(0o755)
    (tmp_path / "Python.h").write_text("")
    for path, headers, package in (("", tmp_path, "apt-get install g++"), (tmp_path, "/", "python3-dev")):
        monkeypatch.setenv("PATH", str(path))
        monkeypatch.setattr(sysconfig, "get_path", lambda _, headers=headers: str(headers))
        with pytest.raises(BadInput, match="compiler") as refusal:
            check_installed("huggingface", asked)
        assert (refusal.value.field, package in refusal.value.detail) == ("torch_compile", True)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    check_installed("huggingface", asked)


def test_trackers_that_are_not_installed_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "trackio.py").write_text("")
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)  # what wandb leaves is no package
    found = importlib.util.find_spec

    def find(name: str) -> object:
        here = name in {"trackio", "wandb", "mlflow"}
        return importlib.machinery.PathFinder.find_spec(name, [str(tmp_path)]) if here else found(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    check_installed("huggingface", wire.TrainingParameters(report_to="trackio"))
    with pytest.raises(BadInput, match="wandb and mlflow are not installed") as refused:
        check_installed("huggingface", wire.TrainingParameters(report_to=("wandb", "trackio", "mlflow")))
    assert refused.value.field == "report_to"
    assert "pip install wandb mlflow" in refused.value.detail


def test_flash_attention_needs_a_gpu_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = wire.TrainingParameters(attn_implementation="flash_attention_2")
    for seen, says in (("", "needs a GPU"), ("0", "is not installed")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        with pytest.raises(BadInput, match=f"flash_attention_2 {says}") as refused:
            check_installed("huggingface", asked)
        assert refused.value.field == "attn_implementation"
        assert '"sdpa"' in refused.value.detail
    for plain in ("eager", "sdpa", None):
        check_installed("huggingface", wire.TrainingParameters(attn_implementation=plain))
