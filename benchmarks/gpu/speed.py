"""Tokens a second beside the bare libraries: in turns, one training at a time, medians of the rounds."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from gpu.attempts import Attempt
from gpu.bare_runs import ADAPTER, bare
from gpu.bench import Broken
from gpu.learning import why_no_unsloth
from gpu.records import long_texts, write_records
from gpu.table import Finding, judged, not_shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu.bench import Bench
    from trainer_entry import wire

_AT_LEAST = 0.95
"""Of the bare library's speed: medians of three are apart by about so much."""


def speed_beside_trl(bench: Bench) -> Iterator[Finding]:
    """The provider huggingface beside trl alone."""
    yield _speed(bench, "huggingface", "trl")


def speed_beside_unsloth(bench: Bench) -> Iterator[Finding]:
    """The provider unsloth beside unsloth alone."""
    if (why := why_no_unsloth()) is not None:
        yield not_shown("unsloth", why)
        return
    yield _speed(bench, "unsloth", "unsloth")


def _speed(bench: Bench, provider: wire.Provider, library: str) -> Finding:
    sizes = bench.sizes
    steps = sizes.warm_steps + sizes.speed_steps
    folder = bench.room(f"speed-{provider}")
    # Every row fills the length: each step reads as many tokens.
    dataset = write_records(folder / "records.jsonl", long_texts(sizes.batch * 8, sizes.speed_length))
    given: dict[str, Any] = {
        **ADAPTER,
        "per_device_train_batch_size": sizes.batch,
        "max_seq_length": sizes.speed_length,
        "max_steps": steps,
        "logging_steps": sizes.warm_steps,  # each report waits for the card
        "learning_rate": 1e-4,
        "gradient_checkpointing": False,
    }
    tokens = sizes.speed_steps * sizes.batch * sizes.speed_length
    ours, theirs = [], []
    for turn in range(sizes.rounds):
        attempt = Attempt(bench, f"speed-{provider}-{turn}", dataset, provider=provider, **given).wait()
        ours.append(tokens / _seconds(bench, {step.step: step.elapsed_seconds for step in attempt.steps()}))
        alone = bare(bench, f"speed-bare-{provider}-{turn}", dataset, strategy="sft", provider=provider, **given)()
        theirs.append(tokens / _seconds(bench, {step.step: step.seconds for step in alone}))
    ratio = median(ours) / median(theirs)
    return judged(
        f"sft with {provider} beside bare {library}",
        f"{median(ours):,.0f} tokens/s, bare {median(theirs):,.0f}: {ratio:.2f} of it, medians of {sizes.rounds}",
        f"at least {_AT_LEAST}",
        holds=ratio >= _AT_LEAST if bench.on_gpu else None,
        ours=ours,
        bare=theirs,
        ratio=ratio,
    )


def _seconds(bench: Bench, at: dict[int, float]) -> float:
    """From the last warm step to the last one."""
    warm, last = bench.sizes.warm_steps, bench.sizes.warm_steps + bench.sizes.speed_steps
    if warm not in at or last not in at:
        raise Broken(f"steps {sorted(at)} were logged, and {warm} and {last} are needed")
    return at[last] - at[warm]
