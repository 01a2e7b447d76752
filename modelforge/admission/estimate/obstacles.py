"""What a trainer would refuse after it was launched, as far as it shows in a request and in a model's small files."""

from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.admission.estimate.architecture import Architecture
from modelforge.admission.estimate.weights import weights_in
from modelforge.errors import BadInput
from modelforge.machine.devices import visible_gpus
from modelforge.model_files import read_file
from trainer_entry import wire
from trainer_entry.wire import obstacles
from trainer_entry.wire.mixture import in_datasets

_LONGEST_SAID = 1 << 20
"""A tokenizer without a limit says more."""
_HEADS = ("score.weight", "classifier.weight", "classifier.out_proj.weight")
"""What gives the figures of a classifier: a row for each."""
_REWARDS = "ForSequenceClassification"


class _Build(Struct):
    """The parts of a model's `config.json` that are read."""

    model_type: str | None = None
    is_encoder_decoder: bool = False


class _Classifier(Struct):
    """The parts of a reward model's `config.json` that are read."""

    num_labels: int | None = None
    id2label: dict[str, str] | None = None
    architectures: list[str] | None = None


class _GenerationSettings(Struct):
    """The parts of `generation_config.json` for which transformers refuses all of it."""

    max_new_tokens: int | None = None
    early_stopping: bool | str | int | None = None
    num_return_sequences: int | None = None
    num_beams: int | None = None
    do_sample: bool | None = None


class _TokenizerSettings(Struct):
    model_max_length: int | float | None = None


def known_obstacles(spec: wire.JobSpec, architecture: Architecture | None, folder: Path | None) -> list[BadInput]:
    """What speaks against a training. `folder`: of its model, where that is on this machine."""
    parameters, strategy = spec.parameters, spec.strategy
    context = _context_of(architecture, folder)
    found = (
        in_datasets(spec),
        obstacles.in_length(parameters, spec.task),
        obstacles.in_schedule(parameters),
        obstacles.in_seed(parameters, strategy),
        obstacles.in_context(parameters, strategy, context) if context is not None else None,
        obstacles.on_cpu_with_unsloth(parameters, strategy)
        if spec.provider == "unsloth" and not (visible_gpus() if spec.cluster is None else spec.cluster.gpus_per_node)
        else None,
        *(_in_build(spec, folder) if folder is not None else ()),
        _in_reward_model(spec),
        _in_generation(spec.model_name, folder) if folder is not None else None,
    )
    return [BadInput(one.message, one.remedy, field=one.field) for one in found if one is not None]


def _context_of(architecture: Architecture | None, folder: Path | None) -> int | None:
    """How many tokens the model takes, as its config and its tokenizer say; None where neither does."""
    limits = [] if architecture is None or architecture.context is None else [architecture.context]
    if folder is not None:
        try:
            said = msgspec.json.decode(read_file(folder, "tokenizer_config.json"), type=_TokenizerSettings)
        except (OSError, ValueError, RecursionError):  # it may have none; what is wrong with it is found elsewhere
            said = _TokenizerSettings()
        if said.model_max_length is not None and 0 < said.model_max_length <= _LONGEST_SAID:
            limits.append(int(said.model_max_length))
    return min(limits, default=None)


def _in_build(spec: wire.JobSpec, folder: Path) -> tuple[obstacles.Obstacle | None, ...]:
    """What speaks against the parameters in how the model is built."""
    try:
        build = msgspec.json.decode(read_file(folder, "config.json"), type=_Build)
    except (OSError, ValueError, RecursionError):  # the check of the model has said so
        return ()
    return (
        obstacles.in_packing(spec.parameters, build.model_type, encoder_decoder=build.is_encoder_decoder),
        obstacles.in_build(spec.parameters, build.model_type, encoder_decoder=build.is_encoder_decoder),
    )


def _in_generation(name: str, folder: Path) -> obstacles.Obstacle | None:
    """What in a model's generation settings keeps transformers from loading it; beside less it settles the rest."""
    try:
        own = msgspec.json.decode(read_file(folder, "generation_config.json"), type=_GenerationSettings)
    except (OSError, ValueError, RecursionError):  # none, or none that is read
        return None
    fewest = 1 if own.num_beams is None else own.num_beams
    several = own.num_return_sequences is not None and own.num_return_sequences > 1
    if own.max_new_tokens is not None and own.max_new_tokens <= 0:
        why = f"max_new_tokens is {own.max_new_tokens}"
    elif own.early_stopping not in {None, True, False, "never"}:
        why = f"early_stopping is {own.early_stopping!r}"
    elif several and ((fewest == 1 and not own.do_sample) or 1 < fewest < (own.num_return_sequences or 0)):
        why = f"num_return_sequences {own.num_return_sequences} are more than num_beams {fewest}"
    else:
        return None
    return obstacles.Obstacle(
        "model_name",
        "The model's generation_config.json cannot be used",
        f"{name}: {why}. Correct the file, or take it away.",
    )


def _in_reward_model(spec: wire.JobSpec) -> obstacles.Obstacle | None:
    """What speaks against the reward model that is given, where it is on this machine."""
    name = spec.parameters.reward_model
    if name is None or spec.reward_model_path is None or not Path(spec.reward_model_path).is_absolute():
        return None
    try:
        config = msgspec.json.decode(read_file(Path(spec.reward_model_path), "config.json"), type=_Classifier)
    except (OSError, ValueError, RecursionError):  # the check of the model has said so
        return None
    if config.architectures and not any(one.endswith(_REWARDS) for one in config.architectures):
        return obstacles.Obstacle(
            "reward_model",
            f"{name} is no reward model: it is a {', '.join(config.architectures)}",
            "Name a sequence classifier with num_labels 1, or leave out reward_model to have one trained.",
        )
    labels = _labels_of(config, Path(spec.reward_model_path))
    return None if labels is None else obstacles.in_reward_model(name, labels)


def _labels_of(config: _Classifier, folder: Path) -> int | None:
    """How many figures a classifier gives; None where neither its config nor its weights say."""
    if config.num_labels is not None:
        return config.num_labels
    if config.id2label is not None:
        return len(config.id2label)
    try:
        weights = weights_in("", folder, "reward_model")
    except BadInput:  # the trainer says it; a reward model is small beside its policy
        return None
    return next((weight.shape[0] for weight in weights if weight.name in _HEADS and weight.shape), None)
