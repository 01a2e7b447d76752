"""Which settings of a training go together, and what is said of those that do not."""

from itertools import product
from typing import get_args

import pytest

from modelforge.domain.compatibility import Build, check_build, check_combination
from modelforge.domain.conflicts import CONFLICTS, Conflict
from modelforge.domain.purposes import Purpose, check_format, purpose_of, trainable
from modelforge.errors import BadInput
from trainer_entry import wire

QA: wire.Task = "extractive-question-answering"


@pytest.mark.parametrize(
    ("dataset_format", "task", "strategy"),
    [
        ("input_output", "text-generation", "sft"),
        ("messages", "text-generation", "qlora"),
        ("input_output", "summarization", "qlora"),
        ("document_summary", "summarization", "sft"),
        ("article_highlights", "summarization", "qlora"),
        ("question_answer", QA, "sft"),
        ("squad", QA, "qlora"),
        ("preferences", "text-generation", "dpo"),
        ("preferences", "summarization", "rlhf"),
        ("preferences", "text-generation", None),
        ("preferences", None, "dpo"),
        ("squad", None, None),
    ],
)
def test_a_dataset_is_taken_for_what_its_records_are_made_for(
    dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None
) -> None:
    check_format(dataset_format, task, strategy)


@pytest.mark.parametrize(
    ("dataset_format", "task", "strategy", "says"),
    [
        ("preferences", "text-generation", "sft", "alpaca or messages or conversations"),
        ("input_output", "text-generation", "dpo", "preferences"),
        ("messages", "summarization", "sft", "input_output or document_summary or article_highlights"),
        ("document_summary", "text-generation", "sft", "summarization"),
        ("article_highlights", "summarization", "dpo", "preferences"),
        ("text", "text-generation", "rlhf", "preferences or prompts"),
        ("input_output", QA, "sft", "question_answer or squad"),
        ("squad", "text-generation", "qlora", QA),
        ("preferences", QA, None, "text-generation or summarization"),
        ("squad", None, "dpo", "sft or qlora"),
    ],
)
def test_a_dataset_for_something_else_is_refused_with_what_would_do(
    dataset_format: wire.DatasetFormat, task: wire.Task | None, strategy: wire.Strategy | None, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_format(dataset_format, task, strategy)
    assert refusal.value.field == "dataset"
    assert dataset_format in refusal.value.message
    assert says in refusal.value.detail


@pytest.mark.parametrize("dataset_format", get_args(wire.DatasetFormat))
def test_a_dataset_has_a_purpose_of_its_own_and_every_other_that_it_serves(dataset_format: wire.DatasetFormat) -> None:
    own = purpose_of(dataset_format, None, None, "huggingface")
    tasks, strategies = trainable(dataset_format)
    assert own == Purpose(tasks[0], strategies[0], "huggingface")
    check_combination(own.task, own.strategy, own.provider, wire.TrainingParameters())
    for task, strategy in product(get_args(wire.Task), get_args(wire.Strategy)):
        if task in tasks and strategy in strategies:
            assert purpose_of(dataset_format, task, strategy, "unsloth") == Purpose(task, strategy, "unsloth")
            continue
        with pytest.raises(BadInput) as refusal:
            purpose_of(dataset_format, task, strategy, "unsloth")
        assert refusal.value.field == ("strategy" if task in tasks else "task")


@pytest.mark.parametrize(
    ("task", "strategy", "provider"),
    [
        *(
            (task, strategy, provider)
            for task in ("text-generation", "summarization")
            for strategy in ("sft", "qlora", "dpo", "rlhf")
            for provider in ("huggingface", "unsloth")
        ),
        (QA, "sft", "huggingface"),
        (QA, "qlora", "huggingface"),
    ],
)
def test_every_task_is_trained_with_the_strategies_and_providers_that_suit_it(
    task: wire.Task, strategy: wire.Strategy, provider: wire.Provider
) -> None:
    check_combination(task, strategy, provider, wire.TrainingParameters())


Changed = dict[str, object]


@pytest.mark.parametrize(
    ("strategy", "changed"),
    [
        ("sft", {"num_processes": 2, "packing": True}),
        ("qlora", {"use_8bit": True}),
        ("dpo", {"use_4bit": True, "beta": 0.5}),
        ("dpo", {"eval_split": 0.1, "early_stopping_patience": 2}),
        ("rlhf", {"use_8bit": True, "eval_split": 0.1, "beta": 0.0, "rl_algorithm": "grpo"}),
        ("rlhf", {"reward_model": "owner/judge", "max_completion_length": 16, "reward_learning_rate": 1e-4}),
        ("rlhf", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "num_processes": 4}),
        ("sft", {"doc_stride": 128, "num_generations": 4}),
        ("sft", {"truncation": "left"}),
        ("dpo", {"truncation": "drop"}),
        ("sft", {"use_dora": True, "use_rslora": True, "loraplus_lr_ratio": 16.0, "modules_to_save": ("lm_head",)}),
        ("sft", {"init_lora_weights": "pissa_niter_16", "group_by_length": True, "neftune_noise_alpha": 5.0}),
        ("sft", {"torch_compile": True, "liger": True, "use_lora": False, "packing": True}),
        ("qlora", {"use_4bit": True, "use_dora": True, "init_lora_weights": "gaussian", "optim": "adamw_8bit"}),
        ("dpo", {"loss_type": "ipo", "beta": 0.5, "init_lora_weights": "orthogonal", "torch_compile": True}),
        ("rlhf", {"use_dora": True, "loraplus_lr_ratio": 4.0, "modules_to_save": ("embed_tokens",)}),
    ],
)
def test_settings_that_go_together_are_taken(strategy: wire.Strategy, changed: Changed) -> None:
    check_combination("text-generation", strategy, "huggingface", wire.TrainingParameters(**changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "strategy", "provider", "changed", "field", "says"),
    [
        (QA, "dpo", "huggingface", {}, "strategy", "generated texts"),
        (QA, "rlhf", "huggingface", {}, "strategy", "generated texts"),
        (QA, "sft", "unsloth", {}, "provider", "causal models only"),
        ("text-generation", "sft", "unsloth", {"max_seq_length": -1}, "max_seq_length", "2048"),
        ("text-generation", "sft", "unsloth", {"num_processes": 2}, "num_processes", "one process"),
        ("text-generation", "sft", "huggingface", {"use_4bit": True}, "use_4bit", "qlora"),
        ("text-generation", "qlora", "huggingface", {"use_lora": False}, "use_lora", "sft"),
        ("text-generation", "dpo", "huggingface", {"use_4bit": True, "use_lora": False}, "use_lora", "use_4bit"),
        ("text-generation", "rlhf", "huggingface", {"use_8bit": True, "use_lora": False}, "use_lora", "use_8bit"),
        ("text-generation", "dpo", "huggingface", {"use_8bit": True, "use_4bit": True}, "use_4bit", "use_8bit"),
        ("text-generation", "sft", "huggingface", {"weight_dtype": "bfloat16"}, "weight_dtype", "use_lora"),
        (
            "text-generation",
            "sft",
            "huggingface",
            {"weight_dtype": "bfloat16", "use_lora": False, "fp16": True},
            "weight_dtype",
            "fp16",
        ),
        ("text-generation", "sft", "unsloth", {"attn_implementation": "sdpa"}, "attn_implementation", "unsloth"),
        (
            "text-generation",
            "sft",
            "huggingface",
            {"attn_implementation": "flash_attention_2", "bf16": False},
            "attn_implementation",
            "bf16",
        ),
        ("text-generation", "sft", "huggingface", {"beta": 0.1}, "beta", "dpo"),
        ("text-generation", "sft", "huggingface", {"doc_stride": 64}, "doc_stride", QA),
        ("text-generation", "rlhf", "huggingface", {"truncation": "left"}, "truncation", "left out"),
        ("summarization", "sft", "huggingface", {"truncation": "drop"}, "truncation", "summary"),
        (QA, "sft", "huggingface", {"truncation": "left"}, "truncation", "windows"),
        ("text-generation", "dpo", "huggingface", {"packing": True}, "packing", "sft"),
        ("text-generation", "rlhf", "huggingface", {"packing": True}, "packing", "sft"),
        (QA, "sft", "huggingface", {"packing": True}, "packing", "context"),
        ("text-generation", "dpo", "huggingface", {"reward_model": "owner/judge"}, "reward_model", "rlhf"),
        ("text-generation", "sft", "huggingface", {"reward_learning_rate": 0.1}, "reward_learning_rate", "rlhf"),
        ("text-generation", "dpo", "huggingface", {"rl_algorithm": "grpo"}, "rl_algorithm", "rlhf"),
        ("text-generation", "sft", "huggingface", {"num_generations": 2}, "num_generations", "rlhf"),
        ("text-generation", "sft", "huggingface", {"max_completion_length": 8}, "max_completion_length", "rlhf"),
        (
            "text-generation",
            "rlhf",
            "huggingface",
            {"eval_split": 0.1, "early_stopping_patience": 2},
            "early_stopping_patience",
            "Leave it out",
        ),
    ],
)
def test_settings_that_cannot_work_together_are_refused_with_what_would(
    task: wire.Task, strategy: wire.Strategy, provider: wire.Provider, changed: Changed, field: str, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_combination(task, strategy, provider, wire.TrainingParameters(**changed))  # type: ignore[arg-type]
    assert refusal.value.field == field
    assert says in refusal.value.message + refusal.value.detail


SET: Changed = {
    "use_rslora": True,
    "use_dora": True,
    "init_lora_weights": "gaussian",
    "modules_to_save": ("lm_head",),
    "loraplus_lr_ratio": 16.0,
    "neftune_noise_alpha": 5.0,
    "loss_type": "apo_zero",
    "group_by_length": True,
    "torch_compile": True,
    "liger": True,
    "tracker_project": "desk",
    "tracker_run": "third",
    "tracker_tags": ("night",),
}
BESIDE: dict[str, tuple[wire.Task, wire.Strategy, wire.Provider, Changed]] = {
    "use_lora false": ("text-generation", "sft", "huggingface", {"use_lora": False}),
    "report_to none": ("text-generation", "sft", "huggingface", {"report_to": "none"}),
    "provider unsloth": ("text-generation", "sft", "unsloth", {}),
    "strategy dpo": ("text-generation", "dpo", "huggingface", {}),
    "strategy rlhf": ("text-generation", "rlhf", "huggingface", {}),
    "another strategy than dpo": ("text-generation", "rlhf", "huggingface", {}),
    "task extractive-question-answering": (QA, "sft", "huggingface", {}),
    "quantised weights": ("text-generation", "qlora", "huggingface", {"use_8bit": True}),
    "use_8bit": ("text-generation", "qlora", "huggingface", {"use_8bit": True}),
    "use_dora": ("text-generation", "sft", "huggingface", {"use_dora": True}),
    "an odd lora_r": ("text-generation", "sft", "huggingface", {"lora_r": 7}),
    "the same in target_modules": ("text-generation", "sft", "huggingface", {"target_modules": ("lm_head", "q_proj")}),
    "optim adafactor, sgd": ("text-generation", "sft", "huggingface", {"optim": "sgd"}),
    "beta 0": ("text-generation", "dpo", "huggingface", {"beta": 0.0}),
    "packing": ("text-generation", "sft", "huggingface", {"packing": True}),
    "num_processes above 1": ("text-generation", "sft", "huggingface", {"num_processes": 2}),
}
"""What each conflict is with, as it is asked for."""


@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda conflict: f"{conflict.setting} with {conflict.other}")
def test_each_of_the_table_is_refused_by_its_name_and_goes_without_the_other(conflict: Conflict) -> None:
    name = conflict.parameter
    task, strategy, provider, beside = BESIDE[conflict.other]
    for value in conflict.value.split(", ") if conflict.value else (SET[name],):
        with pytest.raises(BadInput) as refusal:
            check_combination(task, strategy, provider, wire.TrainingParameters(**{name: value, **beside}))  # type: ignore[arg-type]
        assert refusal.value.field == name
        assert name in refusal.value.message
        assert conflict.other in refusal.value.message
        assert refusal.value.detail
        alone: wire.Strategy = "dpo" if name == "loss_type" else "sft"
        told: Changed = {"report_to": "wandb"} if name.startswith("tracker_") else {}
        check_combination("text-generation", alone, "huggingface", wire.TrainingParameters(**{name: value, **told}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"init_lora_weights": False}, "orthogonal"),
        ({"init_lora_weights": "eva"}, "needs the records"),
        ({"init_lora_weights": "pissa_niter_0"}, "pissa_niter_4"),
        ({"init_lora_weights": "kaiming"}, "gaussian"),
        ({"loss_type": "simpo"}, "trl.experimental"),
        ({"loss_type": "orpo"}, "trl.experimental"),
        ({"loss_type": "robust"}, "label_smoothing"),
        ({"loss_type": "aot"}, "batches"),
        ({"loss_type": "discopop"}, "rejected"),
        ({"loss_type": "sft"}, 'strategy "sft"'),
        ({"loss_type": "focal"}, "sigmoid, sigmoid_norm, hinge"),
    ],
)
def test_a_name_that_is_none_here_is_refused_with_those_that_are(changed: Changed, says: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_combination("text-generation", "dpo", "huggingface", wire.TrainingParameters(**changed))  # type: ignore[arg-type]
    ((name, value),) = changed.items()
    assert refusal.value.field == name
    assert str(value).lower() in refusal.value.message
    assert says in refusal.value.detail


@pytest.mark.parametrize(
    ("changed", "works"),
    [
        ({"num_generations": 3}, "num_generations 2 or 4, or per_device_train_batch_size 3 or 6."),
        ({"num_generations": 8}, "num_generations 4, or per_device_train_batch_size 8."),
        ({"per_device_train_batch_size": 1}, "What works: per_device_train_batch_size 4."),
        (
            {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3, "num_processes": 2},
            "num_generations 3 or 6, or per_device_train_batch_size 2.",
        ),
    ],
)
def test_generations_that_do_not_fill_their_batch_are_refused_with_the_nearest_that_do(
    changed: Changed, works: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_combination("text-generation", "rlhf", "huggingface", wire.TrainingParameters(**changed))  # type: ignore[arg-type]
    assert refusal.value.field == "num_generations"
    assert works in refusal.value.detail


@pytest.mark.parametrize(
    ("build", "purpose"),
    [
        ("causal", Purpose("text-generation", "rlhf", "unsloth")),
        ("causal", Purpose("summarization", "sft", "huggingface")),
        ("headless", Purpose(QA, "qlora", "huggingface")),
        ("encoder-decoder", Purpose("summarization", "qlora", "huggingface")),
    ],
)
def test_a_model_is_taken_for_what_it_is_built_for(build: Build, purpose: Purpose) -> None:
    check_build("mine", build, purpose, "model_name")


@pytest.mark.parametrize(
    ("build", "purpose", "says"),
    [
        ("causal", Purpose(QA, "sft", "huggingface"), "encoder"),
        ("headless", Purpose("text-generation", "sft", "huggingface"), "causal"),
        ("headless", Purpose("summarization", "sft", "huggingface"), "causal"),
        ("encoder-decoder", Purpose("text-generation", "sft", "huggingface"), "summarization"),
        ("encoder-decoder", Purpose(QA, "sft", "huggingface"), "only encodes"),
        ("encoder-decoder", Purpose("summarization", "dpo", "huggingface"), "sft or qlora"),
        ("encoder-decoder", Purpose("summarization", "sft", "unsloth"), "huggingface"),
    ],
)
def test_a_model_that_cannot_learn_the_task_is_refused_with_one_that_could(
    build: Build, purpose: Purpose, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_build("mine", build, purpose, "model_name")
    assert refusal.value.field == "model_name"
    assert "mine" in refusal.value.detail
    assert says in refusal.value.detail
