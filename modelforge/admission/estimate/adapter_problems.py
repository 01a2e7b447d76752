"""What speaks against an adapter in the layers of its model, as far as the names and shapes of weights show it."""

from modelforge.admission.estimate.adapters import (
    embeddings,
    linear_layers,
    missing_modules,
    modules_in,
    saved_weights,
    targeted_layers,
)
from modelforge.admission.estimate.architecture import Architecture
from modelforge.admission.estimate.weights import Weight
from modelforge.errors import BadInput
from trainer_entry import wire

_MATRIX = 2
_MADE_NEW = frozenset({"lm_head", "qa_outputs", "score"})
"""Heads that a model has for its task, though its files may not; a trial finds out."""


def adapter_problems(
    spec: wire.JobSpec, weights: tuple[Weight, ...], architecture: Architecture | None
) -> list[BadInput]:
    """Modules that are to be trained whole and are not there, or cannot be; a rank that no layer has."""
    parameters = spec.parameters
    if not weights or not parameters.use_lora or any(len(weight.shape) > _MATRIX for weight in weights):
        return []  # experts in one: files name layers otherwise, and the trainer says it
    encoder_decoder = architecture is not None and architecture.encoder_decoder
    found = (
        _missing(parameters, weights),
        _not_whole(spec, weights, encoder_decoder=encoder_decoder),
        _part(parameters, weights),
    )
    return [problem for problem in found if problem is not None]


def _missing(parameters: wire.TrainingParameters, weights: tuple[Weight, ...]) -> BadInput | None:
    missing = [name for name in missing_modules(weights, parameters.modules_to_save or ()) if name not in _MADE_NEW]
    if not missing:
        return None
    called = {module.rpartition(".")[2] for module in modules_in(weights)}
    return BadInput(
        f"The model has no module called {', '.join(missing)} as in modules_to_save",
        f"Its own are called {', '.join(sorted(name for name in called if not name.isdigit())[:20])}.",
        field="modules_to_save",
    )


def _not_whole(spec: wire.JobSpec, weights: tuple[Weight, ...], *, encoder_decoder: bool) -> BadInput | None:
    parameters = spec.parameters
    whole = saved_weights(weights, parameters.modules_to_save or ())
    quantised = spec.strategy == "qlora" or parameters.use_4bit or parameters.use_8bit
    if quantised and (layers := linear_layers(whole)):
        return BadInput(
            f"modules_to_save has {layers[0].name.removesuffix('.weight')}, which is quantised",
            'Quantised weights cannot be trained: leave it out, or use "sft" without use_4bit and use_8bit.',
            field="modules_to_save",
        )
    if encoder_decoder and (words := embeddings(whole)):
        return BadInput(
            f"modules_to_save has {words[0].name.removesuffix('.weight')}, embeddings of an encoder-decoder",
            "Its parts share them, and peft would train one of the parts: leave it out.",
            field="modules_to_save",
        )
    return None


def _part(parameters: wire.TrainingParameters, weights: tuple[Weight, ...]) -> BadInput | None:
    """What speaks against taking a part of each layer's weights."""
    if not parameters.changes_base:
        return None
    targets = targeted_layers(weights, parameters.target_modules)
    if words := embeddings(targets):
        return BadInput(
            f"target_modules has {words[0].name.removesuffix('.weight')}, of which init_lora_weights takes no part",
            "It is for linear layers: leave one of the two out.",
            field="init_lora_weights",
        )
    least = min((min(weight.shape) for weight in targets), default=None)
    if least is None or parameters.lora_r <= least:
        return None
    return BadInput(
        f"lora_r {parameters.lora_r} is more than the rank of a layer, of which init_lora_weights takes a part",
        f"Send {least} or less, or leave out init_lora_weights.",
        field="lora_r",
    )
