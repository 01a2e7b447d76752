"""Where an attempt runs."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from trainer_entry.wire import Environment

_LIBRARIES = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "safetensors",
    "numpy",
    "unsloth",
    "unsloth_zoo",
)


def describe() -> Environment:
    """The machine and the libraries, as far as a result depends on them."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        versions={name: found for name in _LIBRARIES if (found := _version(name)) is not None},
        world_size=torch.distributed.get_world_size() if distributed else 1,
        cpu_threads=torch.get_num_threads(),
    )


@functools.cache  # the packages of a process that imported them do not change, and each is looked for on the disk
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
