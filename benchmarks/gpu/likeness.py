"""The same losses as plain trl, step by step: same model, data, seed and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from gpu.attempts import launching
from gpu.bare_runs import ADAPTER, bare
from gpu.bench import Broken
from gpu.records import preferences, sums, write_records
from gpu.table import Finding, failed, judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpu.bare_order import BareStrategy
    from gpu.bench import Bench
    from trainer_entry import wire

_RELATIVE = {"fp32": 1e-3, "bf16": 2e-2}
"""In 16 bits the order of sums, which the card chooses, is seen in the third digit and grows with the steps."""


class _Case(Struct, frozen=True):
    strategy: BareStrategy
    precision: Literal["fp32", "bf16"]

    def __str__(self) -> str:
        return f"{self.strategy}-{self.precision}"


_CASES = (_Case("sft", "bf16"), _Case("dpo", "bf16"), _Case("sft", "fp32"), _Case("dpo", "fp32"))


def losses_of_plain_trl(bench: Bench) -> Iterator[Finding]:
    """Sft and dpo, in bf16 and in 32 bits."""
    folder = bench.room("likeness")
    sets = {
        "sft": write_records(folder / "sums.jsonl", sums(bench.sizes.records)),
        "dpo": write_records(folder / "preferences.jsonl", preferences(bench.sizes.records)),
    }
    works = [work for case in _CASES for work in _both(bench, case, sets[case.strategy])]
    done = bench.together(works)
    for place, case in enumerate(_CASES):
        what = f"{case.strategy}, {case.precision}"
        ours, theirs = done[2 * place : 2 * place + 2]
        if isinstance(ours, Broken):
            yield failed(what, ours)
        elif isinstance(theirs, Broken):
            yield failed(what, theirs)
        else:
            yield _compared(what, ours, theirs, _RELATIVE[case.precision])


def _both(bench: Bench, case: _Case, dataset: wire.DatasetFile) -> list[Callable[[], list[float]]]:
    """The training here, and by trl alone: the losses of either."""
    given: dict[str, Any] = {
        **ADAPTER,
        "lora_dropout": 0.1,
        "per_device_train_batch_size": bench.sizes.batch,
        "gradient_accumulation_steps": 2,
        "max_steps": bench.sizes.compared_steps,
        "logging_steps": 1,
        "learning_rate": 2e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 2,
        "weight_decay": 0.01,
        "optim": "adamw_torch",
        "bf16": case.precision == "bf16",
        "max_seq_length": bench.sizes.length,
        "gradient_checkpointing": False,
        **({"beta": 0.3} if case.strategy == "dpo" else {}),
    }
    ours = launching(bench, f"ours-{case}", dataset, strategy=case.strategy, **given)
    theirs = bare(bench, f"trl-{case}", dataset, strategy=case.strategy, **given)
    return [lambda: ours().losses(), lambda: [step.loss for step in theirs()]]


def _compared(what: str, ours: list[float], theirs: list[float], bound: float) -> Finding:
    words = f"every step within {bound:.1%}"
    if len(ours) != len(theirs) or not ours:
        return judged(what, f"{len(ours)} steps here, {len(theirs)} there", words, holds=False, ours=ours, trl=theirs)
    apart = [abs(one - other) / abs(other) for one, other in zip(ours, theirs, strict=True)]
    furthest = max(apart)
    return judged(
        what,
        f"{len(ours)} steps, at most {furthest:.2%} apart (step {apart.index(furthest) + 1}); "
        f"{ours[0]:.4f} -> {ours[-1]:.4f}, trl {theirs[0]:.4f} -> {theirs[-1]:.4f}",
        words,
        holds=furthest <= bound,
        ours=ours,
        trl=theirs,
    )
