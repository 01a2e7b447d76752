"""The weights of a model by name and shape, from the headers of its safetensors files; no weight is read.

A file begins with the header's length (8 bytes, little-endian) and the header (JSON: of each tensor its dtype, shape
and place in the rest), and ends where the last tensor does: https://huggingface.co/docs/safetensors.
"""

import math
import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from modelforge.errors import BadInput
from modelforge.model_files import MOST_TENSORS, UnsafeFile, check_pairs, has_file, open_file, read_index
from trainer_entry.wire.model_files import LONGEST_HEADER

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_LENGTH_BYTES = 8
_BITS = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
}
_MOST_DIMENSIONS = 16
_SHOWN = 60
_PAIRS = 4  # of a tensor in a header: its name, dtype, shape and place
_Whole = Annotated[int, Meta(ge=0)]


class Weight(Struct, frozen=True, gc=False):
    """One tensor of a model. Its name ends in `.weight` or `.bias`, or whatever the module calls it."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class _Tensor(Struct):
    dtype: str
    shape: tuple[_Whole, ...]
    data_offsets: tuple[_Whole, _Whole]

    @property
    def bytes(self) -> int:
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def lies(self) -> bool:
        """Whether its bytes are others than its shape needs; of a type that is not known here, far too few."""
        if self.bytes < 0 or len(self.shape) > _MOST_DIMENSIONS:
            return True
        numbers, bits = math.prod(self.shape), _BITS.get(self.dtype)
        return numbers > 8 * self.bytes if bits is None else numbers * bits != 8 * self.bytes


class _Index(Struct):
    weight_map: dict[str, str]


def weights_in(name: str, folder: Path, field: str) -> tuple[Weight, ...]:
    """Every weight of the model in a folder. `name`: as a client named it, in `field`.

    Raises:
        BadInput: a file is not there, is torn, or is none; the message names it.
    """
    weights: list[Weight] = []
    for file in _files(name, folder, field):
        try:
            weights += _read(folder, file, MOST_TENSORS - len(weights))
        except (OSError, ValueError, RecursionError) as error:
            raise BadInput(
                "The model's weights cannot be read",
                f"{name}: {file}: {getattr(error, 'strerror', None) or error}. Copy or download the file again.",
                field=field,
            ) from error
    return tuple(weights)


def _files(name: str, folder: Path, field: str) -> list[str]:
    if has_file(folder, _SINGLE):  # as transformers does: an index beside it is of something else
        return [_SINGLE]
    if not has_file(folder, _INDEX):
        raise BadInput(
            f"The model has no {_SINGLE}",
            f"{name}: its weights stand in {_SINGLE}, or in files that {_INDEX} lists.",
            field=field,
        )
    try:
        files = sorted(set(msgspec.json.decode(read_index(folder, _INDEX), type=_Index).weight_map.values()))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput("A model's file cannot be read", f"{name}: {_INDEX}: {error}", field=field) from error
    for file in files:
        if Path(file).name != file:
            raise BadInput("A model's file cannot be read", f"{name}: {_INDEX} names {file!r}.", field=field)
    return files


def _read(folder: Path, name: str, most: int) -> list[Weight]:
    """The tensors that a file's header lists, at most so many; a ValueError says what is wrong with it."""
    with open_file(folder, name) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size < _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            raise ValueError(f"it is torn, or no safetensors file: {size} bytes do not hold its header")
        if length > LONGEST_HEADER:
            raise UnsafeFile(name, f"its header has {length} bytes, and may have {LONGEST_HEADER}")
        content = file.read(length)
    check_pairs(name, content, _PAIRS * most)
    header = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
    header.pop("__metadata__", None)
    tensors = {name: msgspec.json.decode(raw, type=_Tensor) for name, raw in header.items()}
    wanted = _LENGTH_BYTES + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if size != wanted:
        raise ValueError(f"it is torn: it has {size} bytes, and its header says {wanted}")
    lie = next((name for name, tensor in tensors.items() if tensor.lies), None)
    if lie is not None:
        raise ValueError(f"its header lies: {lie[:_SHOWN]!r} has not the bytes that its shape needs")
    if sum(tensor.bytes for tensor in tensors.values()) != wanted - _LENGTH_BYTES - length:
        raise ValueError("its header lies: tensors share bytes, or leave some out")
    return [Weight(name, tensor.shape) for name, tensor in tensors.items()]
