"""Trainings by a bare library, in the same words as ours."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gpu.bare_order import BareOrder, BareStep
from gpu.bench import Broken, last_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu.bare_order import BareStrategy
    from gpu.bench import Bench
    from trainer_entry import wire

ADAPTER: dict[str, Any] = {"lora_r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
"""The adapter of every comparison, by our names; its dropout is the line's."""


def bare(
    bench: Bench,
    name: str,
    dataset: wire.DatasetFile,
    *,
    strategy: BareStrategy,
    provider: wire.Provider = "huggingface",
    **parameters: Any,
) -> Callable[[], list[BareStep]]:
    """The same training as an attempt with these parameters, by trl or unsloth alone, to be run in its turn."""
    given = {"seed": 7, **bench.precision, **parameters}
    length, dropout = given.pop("max_seq_length"), given.pop("lora_dropout", 0.0)
    rank, alpha, target = (given.pop(key) for key in ("lora_r", "lora_alpha", "target_modules"))
    beta = given.pop("beta", 0.1)
    given.pop("gradient_checkpointing", None)
    folder = bench.room(name)
    order = BareOrder(
        strategy=strategy,
        provider=provider,
        model=str(bench.model),
        dataset=dataset.path,
        output=str(folder / "steps.json"),
        length=length,
        settings=given,
        adapter={"r": rank, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": target},
        beta=beta,
    )
    (folder / "order.json").write_bytes(msgspec.json.encode(order))
    return functools.partial(_run, bench, name, order)


def _run(bench: Bench, name: str, order: BareOrder) -> list[BareStep]:
    folder = Path(order.output).parent
    command = [sys.executable, "-m", "gpu.bare", str(folder / "order.json")]
    process = bench.start(command, folder / "stdout.log", folder / "stderr.log")
    code = bench.wait(process)
    if code != 0:
        raise Broken(f"{name} ended with {code}: {last_words(folder / 'stderr.log')}")
    return msgspec.json.decode(Path(order.output).read_bytes(), type=list[BareStep])
