"""The process of a training, before its libraries are imported, and their import."""
# mypy: allow-untyped-calls

from __future__ import annotations

import os
from typing import TYPE_CHECKING, assert_never

from trainer_entry.providers.libraries import hide_unused
from trainer_entry.runtime import distributed
from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.runtime.imports import importing

if TYPE_CHECKING:
    from pathlib import Path

    from trainer_entry.wire import AttemptSpec, Strategy

_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
"""How torch is told of its allocator, and how it was before 2.9."""


def prepare_process(spec: AttemptSpec, folder: Path) -> None:
    """What the libraries read from the environment, before they are imported."""
    hide_unused(spec.job)
    settle_environment(pieces_grow=spec.job.provider != "unsloth")
    with importing():
        if spec.job.provider == "unsloth":
            _import_unsloth(folder)
        import datasets
        import torch
        import transformers

        _import_strategy(spec.job.strategy)

    torch.set_num_threads(distributed.threads(spec.cpu_threads))
    distributed.prepare()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def settle_environment(*, pieces_grow: bool = True) -> None:
    """Set the variables that the libraries read.

    `pieces_grow`: a GPU's memory comes in pieces that grow, so that nothing of it is lost between tensors of different
    sizes.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if pieces_grow and not any(name in os.environ for name in _ALLOCATOR):
        os.environ[_ALLOCATOR[0]] = "expandable_segments:True"


def _import_strategy(strategy: Strategy) -> None:
    """Import what takes the longest, so that it is done at once."""
    match strategy:
        case "sft" | "qlora":
            from trainer_entry.strategies import sft  # noqa: F401
        case "dpo":
            from trainer_entry.strategies import dpo  # noqa: F401
        case "rlhf":
            from trainer_entry.strategies import reward_model, rlhf  # noqa: F401
        case _:
            assert_never(strategy)


def _import_unsloth(folder: Path) -> None:
    """Import unsloth before the libraries that it changes."""
    os.environ["UNSLOTH_DISABLE_STATISTICS"] = "1"
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(folder / "unsloth_compiled_cache"))
    try:
        import unsloth  # noqa: F401
    except ImportError as error:
        raise ModelUnavailable(
            f"The provider unsloth cannot be used on this machine ({error}). Run `make setup-unsloth`, or use the "
            "provider huggingface."
        ) from error
