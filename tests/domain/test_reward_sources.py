"""What rewards a policy follows from its records, and is refused where nothing would."""

from typing import Any

import msgspec
import pytest

from modelforge.domain.compatibility import check_combination
from modelforge.domain.rewards import check_rewards
from modelforge.errors import BadInput
from trainer_entry import wire


def asked(**values: Any) -> wire.TrainingParameters:
    return msgspec.convert(values, wire.TrainingParameters)


def dataset(dataset_format: wire.DatasetFormat, **fields: Any) -> wire.DatasetFile:
    return wire.DatasetFile(filename="a", path="/a", sha256="", format=dataset_format, num_examples=8, **fields)


def spec(dataset_format: wire.DatasetFormat, **values: Any) -> wire.JobSpec:
    return wire.JobSpec(
        job_id="train_000001",
        task="text-generation",
        strategy="rlhf",
        provider="huggingface",
        model_name="base",
        model_path="/base",
        dataset=dataset(dataset_format),
        parameters=asked(**values),
        output_name="out",
        output_dir="/out",
        checkpoint_dir="/checkpoints",
    )


@pytest.mark.parametrize(
    ("dataset_format", "values", "trains", "has"),
    [
        ("preferences", {}, True, True),
        ("preferences", {"reward_functions": ["exact_match"]}, True, True),
        ("preferences", {"reward_model": "judge", "reward_functions": ["exact_match"]}, False, True),
        ("input_output", {"reward_functions": ["exact_match"]}, False, False),
        ("input_output", {"reward_model": "judge"}, False, True),
        ("prompts", {"reward_model": "judge", "reward_functions": ["format_tags"]}, False, True),
        ("messages", {"reward_functions": [{"name": "exact_match", "weight": -1}]}, False, False),
    ],
)
def test_preferences_train_a_reward_model_unless_one_is_given_and_prompts_none(
    dataset_format: wire.DatasetFormat, values: dict[str, Any], trains: bool, has: bool  # noqa: FBT001
) -> None:  # fmt: skip
    check_combination("text-generation", "rlhf", "huggingface", asked(**values))
    check_rewards("rlhf", dataset(dataset_format), asked(**values))
    job = spec(dataset_format, **values)
    assert (job.trains_reward_model, job.has_reward_model) == (trains, has)


@pytest.mark.parametrize(
    ("given", "values", "field", "says"),
    [
        (dataset("input_output"), {}, "reward_functions", "preferences"),
        (dataset("prompts"), {}, "reward_functions", "reward_model"),
        (
            dataset("input_output"),
            {"reward_functions": ["exact_match"], "reward_learning_rate": 0.1},
            "reward_learning_rate",
            "Leave it out",
        ),
        (dataset("messages", has_tools=True), {"reward_functions": ["exact_match"]}, "dataset", "tools"),
        (
            dataset("input_output"),
            {"reward_functions": [{"name": "exact_match", "weight": 0}]},
            "reward_functions",
            "another weight",
        ),
        (dataset("input_output"), {"reward_functions": [{"name": "length"}]}, "reward_functions[0]", "target"),
        (
            dataset("preferences"),
            {"reward_functions": ["exact_match", {"name": "length", "min": 9, "max": 3}]},
            "reward_functions[1].min",
            "Lower min",
        ),
        (
            dataset("input_output"),
            {"reward_functions": [{"name": "length", "target": 9, "max": 3}]},
            "reward_functions[0].target",
            "one of both",
        ),
        (
            dataset("input_output"),
            {"reward_functions": [{"name": "format_tags", "tags": ["a", "b", "a"]}]},
            "reward_functions[0].tags",
            "once",
        ),
    ],
)
def test_what_cannot_reward_is_refused_by_its_place(
    given: wire.DatasetFile, values: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_rewards("rlhf", given, asked(**values))
    assert refusal.value.field == field
    assert says in refusal.value.detail
    check_rewards("sft", given, asked())


def test_a_function_of_no_weight_is_reported_beside_a_reward_model() -> None:
    check_rewards("rlhf", dataset("preferences"), asked(reward_functions=[{"name": "exact_match", "weight": 0}]))


@pytest.mark.parametrize(
    ("strategy", "provider", "values", "field", "says"),
    [
        ("sft", "huggingface", {"reward_functions": ["exact_match"]}, "reward_functions", "rlhf"),
        ("dpo", "huggingface", {"use_vllm": True}, "use_vllm", "rlhf"),
        ("rlhf", "unsloth", {"use_vllm": True}, "use_vllm", "huggingface"),
        ("rlhf", "huggingface", {"use_vllm": True, "use_8bit": True}, "use_vllm", "use_4bit"),
    ],
)
def test_what_belongs_to_another_strategy_or_provider_is_refused(
    strategy: wire.Strategy, provider: wire.Provider, values: dict[str, Any], field: str, says: str
) -> None:
    with pytest.raises(BadInput) as refusal:
        check_combination("text-generation", strategy, provider, asked(**values))
    assert refusal.value.field == field
    assert says in refusal.value.detail
