"""The reward functions of a job as trl calls them, tried before the first step, and measured on held-out prompts."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from transformers import TrainerState

from trainer_entry.data.edges import content_ids, end_token_ids
from trainer_entry.data.examples import MEASURED_RECORDS, Measure
from trainer_entry.data.reward_fields import FIELDS, fields_in
from trainer_entry.rewards.functions import Completion, score_of
from trainer_entry.rewards.python_file import load_function
from trainer_entry.runtime.failures import WrongRecords
from trainer_entry.runtime.stdout import note
from trainer_entry.tasks.greedy import write_greedily
from trainer_entry.wire.reward_texts import in_fields, texts_in
from trainer_entry.wire.rewards import ANSWER, PythonFile, RewardFunction, labels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_ANSWERED_AT_ONCE = 16


class Rewarder(Struct, frozen=True, gc=False):
    """One of them: what trl calls, what its rewards are reported as, and what they are multiplied by."""

    function: Callable[..., list[float | None]]
    label: str
    weight: float


class Rewards(Struct, frozen=True, gc=False):
    """All of them, in the order in which they were asked for."""

    asked: tuple[RewardFunction, ...]
    rewarders: tuple[Rewarder, ...]
    tokenizer: PreTrainedTokenizerBase

    def check_record(self, line: int, fields: Mapping[str, Any]) -> None:
        """Refuse a record without what its completions are compared with.

        Raises:
            WrongRecords: which line it stands in, and which field is missing.
        """
        found = in_fields(self.asked, fields)
        if found is not None:
            raise WrongRecords(f"Line {line} of the dataset: {found.text} ({found.field})")

    def rehearse(self, rows: Dataset) -> None:
        """Reward the first prompt for its record's own answer, so that nothing fails only after a step.

        Raises:
            RewardFunctionFails: a function raises, or gives no reward.
        """
        if not self.rewarders:
            return
        row = rows[0]
        answer = next(texts_in(fields_in(row[FIELDS]).get(ANSWER)), "")
        said = answer if isinstance(row["prompt"], str) else [{"role": "assistant", "content": answer}]
        for rewarder in self.rewarders:
            (reward,) = rewarder.function(
                prompts=[row["prompt"]],
                completions=[said],
                completion_ids=[content_ids(self.tokenizer, answer)],
                **{FIELDS: [row[FIELDS]]},
                **_beside(),
            )
            note(f"{rewarder.label} rewards the first prompt's own answer with {reward}.")


def rewards_of(functions: tuple[RewardFunction, ...], tokenizer: PreTrainedTokenizerBase) -> Rewards:
    """The functions, loaded.

    Raises:
        RewardFileChanged: a file is not the one that the job was accepted with.
        RewardFunctionFails: a file cannot be run, or has no such function.
    """
    ends = frozenset(end_token_ids(tokenizer, None))
    rewarders = [
        Rewarder(_called(function, label, ends), label, function.weight)
        for function, label in zip(functions, labels_of(functions), strict=True)
    ]
    return Rewards(functions, tuple(rewarders), tokenizer)


def _called(function: RewardFunction, label: str, ends: frozenset[int]) -> Callable[..., list[float | None]]:
    """The function as trl calls it: with lists, of which each place is a completion."""
    if isinstance(function, PythonFile):
        load = load_function(function)

        def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
            given = [fields_in(text) for text in columns.pop(FIELDS)]
            names = dict.fromkeys(name for fields in given for name in fields)
            fields = {name: [one.get(name) for one in given] for name in names}
            return list(load(prompts=list(prompts), completions=list(completions), **fields, **columns))

    else:
        score = score_of(function)

        def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
            del prompts
            return [
                score(Completion(_text_of(completion), _length(ids, ends), fields_in(fields)))
                for completion, ids, fields in zip(
                    completions, columns["completion_ids"], columns[FIELDS], strict=True
                )
            ]  # fmt: skip

    reward.__name__ = label
    return reward


def _beside() -> dict[str, Any]:
    """What trl gives a function beside the fields, where it is not trl that calls it."""
    return {"trainer_state": TrainerState(), "log_extra": _pass_over, "log_metric": _pass_over}


def _pass_over(_name: str, _value: object) -> None:
    """Nothing is kept of what a function logs outside of a step."""


def _text_of(completion: str | list[dict[str, str]]) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _length(ids: Sequence[int], ends: frozenset[int]) -> int:
    """How many tokens a completion has before the one that ends it."""
    return next((place for place, token in enumerate(ids) if token in ends), len(ids))


def measure_of(rewards: Rewards, held_out: Dataset | None, ids_of: Callable[[Any], list[int]], limit: int,
               *, alone: bool) -> Measure | None:  # fmt: skip
    """The mean of each function's rewards for greedy answers to held-out prompts, in `limit` tokens at most.

    `ids_of`: the tokens of a prompt. `alone`: no model rewards beside them, and their sum is the whole reward.
    """
    if held_out is None or not rewards.rewarders:
        return None
    rows = [held_out[place] for place in range(min(len(held_out), MEASURED_RECORDS))]
    tokenizer = rewards.tokenizer

    def measure(model: Any, alive: Callable[[], None]) -> dict[str, float | None]:
        given: list[list[float | None]] = [[] for _ in rewards.rewarders]
        for begin in range(0, len(rows), _ANSWERED_AT_ONCE):
            alive()
            asked = rows[begin : begin + _ANSWERED_AT_ONCE]
            ids = write_greedily(model, tokenizer, [ids_of(row["prompt"]) for row in asked], limit)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            said = [
                text if isinstance(row["prompt"], str) else [{"role": "assistant", "content": text}]
                for row, text in zip(asked, texts, strict=True)
            ]
            for rewarder, found in zip(rewards.rewarders, given, strict=True):
                found.extend(
                    rewarder.function(
                        prompts=[row["prompt"] for row in asked],
                        completions=said,
                        completion_ids=ids,
                        **{FIELDS: [row[FIELDS] for row in asked]},
                        **_beside(),
                    )
                )
        means = [_mean(found) for found in given]
        figures = {
            f"eval_greedy_{rewarder.label}": mean
            for rewarder, mean in zip(rewards.rewarders, means, strict=True)
        }  # fmt: skip
        if not alone:
            return figures
        weighed = [
            rewarder.weight * mean
            for rewarder, mean in zip(rewards.rewarders, means, strict=True)
            if mean is not None
        ]  # fmt: skip
        return {**figures, "eval_greedy_reward": sum(weighed) if weighed else None}

    return measure


def _mean(rewards: Sequence[float | None]) -> float | None:
    known = [reward for reward in rewards if reward is not None]
    return sum(known) / len(known) if known else None
