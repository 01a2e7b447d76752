"""docs/training.md against what trains on what, and against the parameters and their defaults."""

import json
import re
from itertools import product
from typing import Any, get_args

import msgspec
from pages import code, read, rows, section
from support.reference_pages import NOTHING

from modelforge.domain.compatibility import Build, check_build, check_combination
from modelforge.domain.purposes import Purpose
from modelforge.errors import BadInput
from trainer_entry import wire
from trainer_entry.wire import REWARD_DEFAULTS, defaults_of
from trainer_entry.wire.rewards import PythonFile, RewardFunction

PAGE = read("docs/training.md")
PARAMETERS = rows(section(PAGE, "Parameters"))
LEFT_OUT = wire.TrainingParameters()


def trains(task: wire.Task, strategy: wire.Strategy, provider: wire.Provider, build: Build) -> bool:
    try:
        check_combination(task, strategy, provider, LEFT_OUT)
        check_build("This", build, Purpose(task, strategy, provider), "model_name")
    except BadInput:
        return False
    return True


def test_the_table_has_what_trains_and_nothing_else() -> None:
    told = {
        (task, strategy, provider, build)
        for tasks, strategies, providers, builds, _ in rows(section(PAGE, "What trains on what"))
        for task, strategy, provider in product(code(tasks), code(strategies), code(providers))
        for build in re.sub(r" \(.*?\)", "", builds).split(", ")
    }
    every = product(*map(get_args, (wire.Task, wire.Strategy, wire.Provider, Build)))
    assert told == {combination for combination in every if trains(*combination)}


def test_every_parameter_has_its_line() -> None:
    assert [code(row[0])[0] for row in PARAMETERS] == list(wire.TrainingParameters.__struct_fields__)


def test_the_defaults_are_those_of_the_wire() -> None:
    for name, default, meaning in PARAMETERS:
        field = code(name)[0]
        value = getattr(LEFT_OUT, field)
        if value is None:
            assert default == ("null" if field in NOTHING else "chosen"), field
        else:
            assert default == f"`{msgspec.json.encode(value).decode()}`", field
        assert meaning


def test_the_losses_of_preferences_are_those_that_are_taken() -> None:
    told = rows(PAGE[PAGE.index("| `loss_type` | What it is |") :])
    assert [code(name)[0] for name, _ in told] == list(wire.LOSSES)
    assert all("arXiv" in meaning or code(name) == ["sigmoid_norm"] for name, meaning in told)


def test_every_reward_function_has_its_line_with_its_options_and_their_defaults() -> None:
    told = rows(section(PAGE, "Rewards that can be checked"))[: len(get_args(RewardFunction))]
    assert [code(row[0])[0] for row in told] == [kind.__struct_config__.tag for kind in get_args(RewardFunction)]
    for kind, row in zip(get_args(RewardFunction), told, strict=True):
        fields = {field.name: field for field in msgspec.structs.fields(kind) if field.name != "weight"}
        options = code(row[1])
        assert set(fields) == set(options) & set(fields), kind
        for name, field in fields.items():
            if not field.required and field.default is not None:
                said = json.loads(options[options.index(name) + 1])
                assert said == msgspec.to_builtins(field.default, builtin_types=()) or said == list(field.default), name


def test_the_examples_of_reward_functions_are_taken() -> None:
    text = section(PAGE, "Rewards that can be checked")
    (asked,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (named,) = re.findall(r"`(\{\"name\": \"python_file\".*?\})`", PAGE)
    parameters = msgspec.json.decode(asked, type=wire.TrainingParameters)
    assert [function.weight for function in parameters.rewards] == [1, 0.2, 0.1]
    assert msgspec.json.decode(named, type=RewardFunction) == PythonFile(
        path="/home/me/rewards/tests.py", function="passes"
    )
    (source,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)  # noqa: S102 - the page's own
    said = [[{"role": "assistant", "content": "a and b"}], "a"]
    assert names["passes"](prompts=["?", "?"], completions=said, tests=[["a", "b"], ["a", "b"]]) == [1, 0]


def test_the_learning_rates_are_those_of_the_trainer() -> None:
    told = [(float(code(adapter)[0]), float(code(whole)[0])) for _, adapter, whole in learning_rates()]
    kinds = (
        defaults_of("text-generation", "sft", "rloo", encoder_decoder=False),
        defaults_of("summarization", "sft", "rloo", encoder_decoder=True),
        defaults_of("extractive-question-answering", "qlora", "rloo", encoder_decoder=False),
        defaults_of("text-generation", "dpo", "rloo", encoder_decoder=False),
        defaults_of("text-generation", "rlhf", "rloo", encoder_decoder=False),
        REWARD_DEFAULTS,
    )
    assert told == [(kind.adapter_learning_rate, kind.full_learning_rate) for kind in kinds]


def learning_rates() -> list[list[str]]:
    return rows(PAGE[PAGE.index("| For | Adapter |") :])


def test_what_is_said_of_epochs_and_beta_is_what_is_chosen() -> None:
    meaning = {code(row[0])[0]: row[2] for row in PARAMETERS}
    asks = defaults_of("extractive-question-answering", "sft", "rloo", encoder_decoder=False)
    prefers = defaults_of("text-generation", "dpo", "rloo", encoder_decoder=False)
    writes = defaults_of("text-generation", "sft", "rloo", encoder_decoder=False)
    epochs = f"{writes.epochs}; {asks.epochs} for question answering, {prefers.epochs} for"
    assert epochs in meaning["num_train_epochs"]
    for algorithm in ("rloo", "grpo"):
        beta = defaults_of("text-generation", "rlhf", algorithm, encoder_decoder=False).beta
        assert f"{beta} for `{algorithm}`" in meaning["beta"]
    assert f"{prefers.beta} for `dpo`" in meaning["beta"]
    assert f"{wire.UNSLOTH_LENGTH} for `unsloth`" in meaning["max_seq_length"]
