"""The weights of a model on their way into a GGUF file: one after another, and of a large one some rows at a time."""
# mypy: allow-untyped-calls

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as NumberType
from msgspec import Struct
from safetensors import safe_open

from trainer_entry.runtime.failures import ModelUnavailable, NotWritable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trainer_entry.artifacts.gguf.architectures import Architecture, Change
    from trainer_entry.wire import Quantization

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_NUMBERS_AT_ONCE = 1 << 23  # 32 MiB of them as float32
_TYPES: dict[Quantization, NumberType] = {
    "f32": NumberType.F32,
    "f16": NumberType.F16,
    "bf16": NumberType.BF16,
    "q8_0": NumberType.Q8_0,
}
_STORED = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # no weights: older files have them


class Weight(Struct, frozen=True, kw_only=True):
    """A weight as it will be written: its `shape` as numpy has it, its name `source` in `file`, the bytes it takes."""

    name: str
    file: Path
    source: str
    shape: tuple[int, ...]
    type: NumberType
    bytes: int
    change: Change
    heads: int


def stored_type(folder: Path) -> Quantization:
    """The type that holds all that a model's files say, and takes the least: that of most numbers in them."""
    counts: dict[str, int] = {}
    for file in _files(folder):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                part = opened.get_slice(name)
                kind = part.get_dtype()
                counts[kind] = counts.get(kind, 0) + int(np.prod(part.get_shape(), dtype=np.int64))
    most = max(counts, key=lambda kind: counts[kind])
    found: Quantization
    match most:
        case "F16":
            found = "f16"
        case "BF16":
            found = "bf16"
        case _:
            found = "f32"
    return found


def plan_weights(folder: Path, architecture: Architecture, wanted: Quantization) -> list[Weight]:
    """What will be written of a model's weights, from the headers of their files.

    Raises:
        NotWritable: GGUF has no name for one of them.
    """
    names = architecture.names()
    planned: list[Weight] = []
    for file in _files(folder):
        with safe_open(file, framework="pt") as opened:
            for source in sorted(opened.keys()):
                if source.endswith(_BUFFERS) or (architecture.tied and source == "lm_head.weight"):
                    continue
                name = names.get_name(source, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise NotWritable(f"GGUF has no name for {source} in a model of type {architecture.family}.")
                part = opened.get_slice(source)
                if part.get_dtype() not in _STORED:
                    raise NotWritable(f"{source} is stored as {part.get_dtype()}, and not as plain numbers.")
                shape, change = tuple(part.get_shape()), architecture.change_of(source)
                shape = shape[::-1] if change == "transposed" else shape
                kind = _type_of(name, shape, wanted)
                planned.append(
                    Weight(
                        name=name, file=file, source=source, shape=shape, type=kind, bytes=_bytes_of(shape, kind),
                        change=change, heads=architecture.heads_of(source),
                    )
                )  # fmt: skip
    return planned


def _files(folder: Path) -> list[Path]:
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    if not (folder / _INDEX).is_file():
        raise ModelUnavailable(f"There are no weights in {folder}: {_SINGLE} is not there, nor {_INDEX}.")
    index = json.loads((folder / _INDEX).read_bytes())
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _type_of(name: str, shape: tuple[int, ...], wanted: Quantization) -> NumberType:
    """Vectors stay in 32 bits, and so do learned positions; a row that is no whole number of blocks takes 16 bits."""
    if len(shape) == 1 or name.startswith("position_embd"):
        return NumberType.F32
    kind = _TYPES[wanted]
    return kind if shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0 else NumberType.F16


def _bytes_of(shape: tuple[int, ...], kind: NumberType) -> int:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // block * size


def parts_of(weight: Weight) -> Iterator[np.ndarray[Any, Any]]:
    """The rows of a weight one after another, as they are written.

    Raises:
        NotWritable: a number is none, or too large for the type.
    """
    with safe_open(weight.file, framework="pt") as opened:
        if weight.change in {"pairs", "transposed"} or len(weight.shape) == 1:
            yield _written(weight, _changed(weight, opened.get_tensor(weight.source).float().numpy()))
            return
        rows = opened.get_slice(weight.source)
        step = max(1, _NUMBERS_AT_ONCE // int(np.prod(weight.shape[1:], dtype=np.int64)))
        for first in range(0, weight.shape[0], step):
            yield _written(weight, _changed(weight, rows[first : first + step].float().numpy()))


def _changed(weight: Weight, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    match weight.change:
        case "none":
            return numbers
        case "plus_one":
            return numbers + np.float32(1)
        case "transposed":
            return np.ascontiguousarray(numbers.T)
        case "pairs":  # transformers turns number i with number i + size / 2, ggml with its neighbour
            halves = numbers.reshape(weight.heads, 2, -1, *numbers.shape[1:])
            return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(numbers.shape)


def _written(weight: Weight, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        written: np.ndarray[Any, Any] = gguf.quants.quantize(numbers, weight.type)
    if not np.isfinite(written if weight.type == NumberType.F16 else numbers).all():
        raise NotWritable(
            f"{weight.source} has numbers that are none, or too large for 16 bits: "
            "where the model itself answers well, export it as bf16 or f32."
        )
    return written
