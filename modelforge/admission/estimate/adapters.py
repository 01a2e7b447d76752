"""Which weights of a model are layers that an adapter is put on, by their names and shapes.

What peft does with a loaded model (`all-linear`: every linear layer but the one that gives the output) is found here
from the names that the layers have in the files.
"""

import re

from modelforge.admission.estimate.weights import Weight

_MATRIX = 2
_NO_LAYER = re.compile(
    r"(^|\.)(embed\w*|\w*embeddings?|wte|wpe|shared|relative_attention_bias|lm_head|embed_out|cls|classifier|score|"
    r"qa_outputs|pooler)(\.|$)"
)

_HEAD, _TIED_TO_HEAD = "lm_head", "embed_tokens"
_EMBEDDING = re.compile(r"(^|\.)(embed\w*|\w*embeddings?|wte|wpe|shared)(\.|$)")


def linear_layers(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """The weights of linear layers, without embeddings and heads. GPT-2's are transposed: the same in sum."""
    return tuple(
        weight
        for weight in weights
        if len(weight.shape) == _MATRIX and weight.name.endswith(".weight") and not _NO_LAYER.search(weight.name)
    )


def embeddings(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
    """The weights that stand for words and places."""
    return tuple(weight for weight in weights if _EMBEDDING.search(weight.name))


def targeted_layers(weights: tuple[Weight, ...], target_modules: str | tuple[str, ...]) -> tuple[Weight, ...]:
    """The layers that an adapter is put on.

    A pattern (a text that is not `all-linear`) is taken for all of them: no pattern of a client's is run here.
    """
    layers = linear_layers(weights)
    if isinstance(target_modules, str):
        return layers
    matrices = [weight for weight in weights if len(weight.shape) == _MATRIX and weight.name.endswith(".weight")]
    return tuple(weight for weight in matrices if _is_named(weight.name.removesuffix(".weight"), target_modules))


def are_linear(weights: tuple[Weight, ...], names: tuple[str, ...]) -> bool:
    """Whether the names are those of linear layers, one at least, and of nothing else that has weights."""
    linear = {weight.name for weight in linear_layers(weights)}
    named = {weight.name for weight in weights if _is_named(weight.name.rpartition(".")[0], names)}
    return bool(named) and all(name in linear or name.endswith(".bias") for name in named)


def modules_in(weights: tuple[Weight, ...]) -> set[str]:
    """The paths of all modules that have weights, or parts with weights."""
    found: set[str] = set()
    for weight in weights:
        parts = weight.name.split(".")[:-1]
        found.update(".".join(parts[:count]) for count in range(1, len(parts) + 1))
    return found


def missing_modules(weights: tuple[Weight, ...], names: tuple[str, ...]) -> list[str]:
    """Those of the names that no module of the model has."""
    modules = modules_in(weights)
    return [name for name in names if not any(_is_named(module, (name,)) for module in modules)]


def has_tied_head(weights: tuple[Weight, ...]) -> bool:
    """Whether files of a causal model lack the output's weights, for they are those of the embeddings."""
    return not any(_HEAD in weight.name for weight in weights)


def saved_weights(weights: tuple[Weight, ...], names: tuple[str, ...]) -> tuple[Weight, ...]:
    """The weights of modules that are trained whole, by the names in `modules_to_save`.

    The output's are the embeddings' where these are one, and files have them but once.
    """
    if any(name.rpartition(".")[2] == _HEAD for name in names) and has_tied_head(weights):
        names = (*names, _TIED_TO_HEAD)
    wanted = {module for module in modules_in(weights) if _is_named(module, names)}
    return tuple(weight for weight in weights if wanted & modules_in((weight,)))


def layer_names(weights: tuple[Weight, ...]) -> list[str]:
    """The last parts of the layers' names, which `target_modules` takes."""
    return sorted({weight.name.removesuffix(".weight").rpartition(".")[2] for weight in linear_layers(weights)})


def _is_named(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)
