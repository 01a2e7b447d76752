"""Modules that are trained whole beside an adapter, found in the model by their names."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from msgspec import Struct

from trainer_entry.runtime.failures import NotTrainedWhole

if TYPE_CHECKING:
    from trainer_entry.wire import TrainingParameters

_TIED_BY_PEFT = frozenset({"embed_tokens", "lm_head"})
"""What peft knows for embeddings that are the output's weights too, and trains as one."""


class WholeModules(Struct, frozen=True, gc=False):
    """Where the modules are in the model: peft takes their paths, for the end of a name fits others too.

    `within`: they and all their parts, which have no adapter. `tied`: embeddings that give the output too are among
    them, and are trained as one with it.
    """

    paths: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    tied: bool = False


NONE = WholeModules()


def whole_modules(model: Any, parameters: TrainingParameters, *, lacks: frozenset[str] = frozenset()) -> WholeModules:
    """Find what `modules_to_save` names. `lacks`: names that a model of this kind need not have.

    Raises:
        NotTrainedWhole: the model has no module of a name, or it is quantised, or tied to what would not be trained.
    """
    names = parameters.modules_to_save
    if names is None:
        return NONE
    modules = dict(model.named_modules())
    found = {name: [path for path in modules if f".{path}".endswith(f".{name}")] for name in names}
    for name, places in found.items():
        if not places and name not in lacks:
            raise NotTrainedWhole(f"modules_to_save {name!r}: the model has no module of this name. Its own are called "
                               f"{', '.join(_called(modules))}.")  # fmt: skip
    paths = tuple(dict.fromkeys(path for some in found.values() for path in some))
    within = tuple(path for path in modules if any(f"{path}.".startswith(f"{whole}.") for whole in paths))
    for path in paths:
        if not any(True for _ in modules[path].parameters()):
            raise NotTrainedWhole(f"modules_to_save: {path} has nothing that could be trained: leave it out.")
        if not all(weights.is_floating_point() for weights in modules[path].parameters()):
            raise NotTrainedWhole(
                f"modules_to_save: {path} is quantised, and cannot be trained whole: leave it out, or use sft."
            )
        if model.config.is_encoder_decoder and isinstance(modules[path], torch.nn.Embedding):
            raise NotTrainedWhole(
                f"modules_to_save: {path} has the embeddings of an encoder-decoder, whose parts are tied: leave it out."
            )
    return WholeModules(paths, within, _ties_ends(model, modules, paths))


def _ties_ends(model: Any, modules: dict[str, Any], paths: tuple[str, ...]) -> bool:
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(end is None for end in ends) or ends[0].weight is not ends[1].weight:
        return False
    tied = [path for path, module in modules.items() if any(module is end for end in ends)]
    named = [path for path in tied if path in paths]
    if named and not {path.rpartition(".")[2] for path in tied} <= _TIED_BY_PEFT:
        raise NotTrainedWhole(
            f"modules_to_save: {' and '.join(tied)} have the same weights, which peft does not train as one in this "
            f"model: leave {' and '.join(named)} out."
        )
    return bool(named)


def _called(modules: dict[str, Any]) -> list[str]:
    return sorted({path.rpartition(".")[2] for path in modules if path and not path.rpartition(".")[2].isdigit()})[:40]
