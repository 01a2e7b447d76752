"""Every strategy through the real trainer, in bf16: the loss falls, the reward moves, and a model comes of it."""

from __future__ import annotations

import importlib.util
from statistics import mean
from typing import TYPE_CHECKING, Any, assert_never

from gpu.attempts import Attempt, launching, number
from gpu.bench import Broken
from gpu.records import preferences, sums, write_records
from gpu.table import Finding, failed, judged, not_shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu.bench import Bench
    from trainer_entry import wire

_STRATEGIES: tuple[wire.Strategy, ...] = ("sft", "qlora", "dpo", "rlhf")
_FALLS_TO = 0.95
"""The mean of the last losses, of that of the first."""
_AT_EACH_END = 3


def learning_with_huggingface(bench: Bench) -> Iterator[Finding]:
    """Every strategy with the provider huggingface."""
    yield from _learning(bench, "huggingface")


def learning_with_unsloth(bench: Bench) -> Iterator[Finding]:
    """Every strategy with the provider unsloth."""
    if (why := why_no_unsloth()) is not None:
        yield not_shown("unsloth", why)
        return
    yield from _learning(bench, "unsloth")


def why_no_unsloth() -> str | None:
    """Why unsloth is not measured; None where it is there. Whether it can be imported, its lines find out."""
    return None if importlib.util.find_spec("unsloth") is not None else "not installed"


def _learning(bench: Bench, provider: wire.Provider) -> Iterator[Finding]:
    folder = bench.room(f"learning-{provider}")
    answers = write_records(folder / "sums.jsonl", sums(bench.sizes.records))
    pairs = write_records(folder / "preferences.jsonl", preferences(bench.sizes.records))
    works = [
        launching(
            bench,
            f"{provider}-{strategy}",
            answers if strategy in {"sft", "qlora"} else pairs,
            strategy=strategy,
            provider=provider,
            **_parameters(bench, strategy),
        )
        for strategy in _STRATEGIES
    ]
    for strategy, outcome in zip(_STRATEGIES, bench.together(works), strict=True):
        if isinstance(outcome, Broken):
            yield failed(f"{strategy}, {provider}", outcome)
        else:
            yield _judge(strategy, provider, outcome)


def _parameters(bench: Bench, strategy: wire.Strategy) -> dict[str, Any]:
    sizes = bench.sizes
    shared: dict[str, Any] = {"per_device_train_batch_size": sizes.batch, "max_seq_length": sizes.length}
    if strategy == "rlhf":
        rewarding = {
            "reward_learning_rate": sizes.learning_rate,
            "max_completion_length": sizes.completion,
            "num_generations": 2,
        }
        return {**shared, **rewarding, "max_steps": sizes.policy_steps, "learning_rate": 1e-4}
    return {**shared, "max_steps": sizes.steps, "learning_rate": sizes.learning_rate}


def _judge(strategy: wire.Strategy, provider: wire.Provider, attempt: Attempt) -> Finding:
    what = f"{strategy}, {provider}"
    match strategy:
        case "sft" | "qlora" | "dpo":
            losses = attempt.losses()
            first, last = mean(losses[:_AT_EACH_END]), mean(losses[-_AT_EACH_END:])
            return judged(
                what,
                f"finished; loss {first:.3f} -> {last:.3f} in {len(losses)} steps",
                f"last {_AT_EACH_END} at most {_FALLS_TO} of the first",
                holds=last <= _FALLS_TO * first,
                losses=losses,
            )
        case "rlhf":
            rewards = [number(step.reward, f"the reward of step {step.step}") for step in attempt.steps()]
            rewarding = [number(step.loss, "a reward model's loss") for step in attempt.steps("training_reward_model")]
            return judged(
                what,
                f"finished; reward {rewards[0]:.3f} -> {rewards[-1]:.3f} in {len(rewards)} steps, "
                f"the reward model's loss {rewarding[0]:.3f} -> {rewarding[-1]:.3f}",
                "the reward moves, the reward model's loss falls",
                holds=len(set(rewards)) > 1 and rewarding[-1] < rewarding[0],
                rewards=rewards,
                losses=rewarding,
            )
        case _:
            assert_never(strategy)
