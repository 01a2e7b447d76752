"""A trainer killed with signal 9 and resumed: its losses go on as those of one that was left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpu.attempts import Attempt, number
from gpu.bench import Broken
from gpu.records import sums, write_records
from gpu.table import Finding, judged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu.bench import Bench
    from trainer_entry import wire

_RELATIVE = 1e-2


def killed_and_resumed(bench: Bench) -> Iterator[Finding]:
    """Two of the same training; one is killed after its first checkpoint, and goes on from its newest."""
    sizes = bench.sizes
    dataset = write_records(bench.room("resuming") / "sums.jsonl", sums(sizes.records))
    given: dict[str, Any] = {
        "per_device_train_batch_size": sizes.batch,
        "max_seq_length": sizes.length,
        "max_steps": sizes.resume_steps,
        "save_steps": sizes.save_steps,
        "learning_rate": 1e-3,
        "lora_dropout": 0.1,
    }
    cut = Attempt(bench, "killed", dataset, **given)
    cut.wait_until(lambda attempt: any(step.step > sizes.save_steps for step in attempt.steps()))
    cut.kill()
    reached = cut.steps()[-1].step
    if reached >= sizes.resume_steps:
        raise Broken(f"the training was over (step {reached}) before it was killed")

    def alone() -> dict[int, float]:
        return _losses(Attempt(bench, "left-alone", dataset, **given).wait())

    def resumed() -> dict[int, float]:
        return _losses(Attempt(bench, "resumed", dataset, resumes=cut, **given).wait())

    whole, after = bench.together([alone, resumed])
    if isinstance(whole, Broken):
        raise whole
    if isinstance(after, Broken):
        raise after
    yield _compared(whole, after, reached, sizes.resume_steps)


def _losses(attempt: Attempt) -> dict[int, float]:
    steps: list[wire.StepLogged] = attempt.steps()
    return {step.step: number(step.loss, f"{attempt.name}: the loss of step {step.step}") for step in steps}


def _compared(whole: dict[int, float], after: dict[int, float], reached: int, last: int) -> Finding:
    begins = min(after)
    apart = {step: abs(after[step] - whole[step]) / abs(whole[step]) for step in after if step in whole}
    furthest = max(apart, key=lambda step: apart[step])
    complete = set(after) == set(range(begins, last + 1)) and set(after) <= set(whole)
    return judged(
        "kill -9, resume",
        f"killed at step {reached}, resumed at {begins}: {len(apart)} losses at most {apart[furthest]:.2%} apart "
        f"(step {furthest}) from those of a training left alone",
        f"every step to the last within {_RELATIVE:.0%}",
        holds=complete and begins > 1 and apart[furthest] <= _RELATIVE,
        whole=list(whole.values()),
        resumed=list(after.values()),
    )
