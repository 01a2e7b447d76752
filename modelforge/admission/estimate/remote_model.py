"""What is known of a model that is not on this machine: the built-in one from constants, others from the hub."""

import asyncio
import os
from http import HTTPStatus
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge import hub
from modelforge.admission.estimate.architecture import Architecture, architecture_of
from modelforge.admission.estimate.weights import Weight
from trainer_entry.wire import built_in_model_folder

_HUB_SECONDS = 1.0
_BUILT_IN = Architecture(
    hidden=576, layers=30, heads=9, vocabulary=49_152, intermediate=1536, cached=384, context=8192, gated=True
)
_BUILT_IN_PARAMETERS = 134_515_008


class RemoteModel(Struct, frozen=True, gc=False):
    """A model's sizes, and weights of that number and of the shapes that such an architecture has."""

    architecture: Architecture
    weights: tuple[Weight, ...]


class _Totals(Struct):
    total: int = 0


class _HubModel(Struct):
    safetensors: _Totals | None = None


def built_in_folder() -> Path:
    """Where trainers put the built-in model."""
    return Path(built_in_model_folder(str(Path.home()), os.environ.get("XDG_CACHE_HOME")))


def built_in() -> RemoteModel:
    """The built-in model, which may not be on this machine yet."""
    return RemoteModel(_BUILT_IN, weights_like(_BUILT_IN, _BUILT_IN_PARAMETERS))


async def fetch_remote_model(name: str) -> RemoteModel | None:
    """What the hub says of a model within a second; None where it does not."""
    try:
        model, config = await asyncio.gather(_read(f"/api/models/{name}"), _read(f"/{name}/resolve/main/config.json"))
        counted = msgspec.json.decode(model, type=_HubModel).safetensors
    except (hub.HubUnreachable, ValueError, RecursionError):  # the estimate is left out, and it says so
        return None
    architecture = architecture_of(config)
    if counted is None or counted.total <= 0 or architecture is None:
        return None
    return RemoteModel(architecture, weights_like(architecture, counted.total))


async def _read(path: str) -> bytes:
    answer = await hub.get(path, seconds=_HUB_SECONDS)
    if answer.status != HTTPStatus.OK:
        raise hub.HubUnreachable(f"{path}: {answer.status}")
    return answer.body


def weights_like(architecture: Architecture, parameters: int) -> tuple[Weight, ...]:
    """Weights by the names and shapes of Llama's layers, and one for all the rest, so that the number is right."""
    hidden, inner, cached = architecture.hidden, architecture.intermediate, architecture.cached // 2
    shapes: dict[str, tuple[int, int]] = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (cached, hidden),
        "self_attn.v_proj": (cached, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    if architecture.gated:
        shapes["mlp.gate_proj"] = (inner, hidden)
    layers = [
        Weight(f"model.layers.{layer}.{name}.weight", shape)
        for layer in range(architecture.layers)
        for name, shape in shapes.items()
    ]
    rest = parameters - sum(weight.size for weight in layers)
    return (*layers, Weight("model.embed_tokens.weight", (max(0, rest),)))
