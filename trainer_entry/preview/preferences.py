"""Preferences as a model reads them: what trl's trainers make of each."""
# mypy: allow-untyped-calls

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeVar

from trl.trainer.dpo_config import DPOConfig
from trl.trainer.reward_config import RewardConfig

from trainer_entry.data.examples import LINE
from trainer_entry.data.prompts import asked_ids
from trainer_entry.data.records import Line
from trainer_entry.preview.sequences import TokenizationContext, TokenizedExample, TokenizedSequence
from trainer_entry.runtime.bounds import PREVIEW_SECONDS
from trainer_entry.runtime.failures import naming_line
from trainer_entry.strategies import dpo, reward_model, rlhf
from trainer_entry.tasks import policy_prompts, preferences
from trainer_entry.tasks.preferences import Row
from trainer_entry.training.arguments import preference_arguments, reward_arguments
from trainer_entry.wire import SequenceName

_ROWS_AT_ONCE = 500
_FOLDER = "unused"  # trl wants one for checkpoints, and makes it when it trains
_Arguments = TypeVar("_Arguments", DPOConfig, RewardConfig)


def preferences_of(lines: Iterator[Line], context: TokenizationContext) -> Iterator[TokenizedExample]:
    """What the trainer makes of preferences, in their order.

    Raises:
        NoChatTemplate: conversations, for a model that does not say how to write one.
        ChatTemplateFails: the model's template cannot write one of them; the message says which.
    """
    while rows := [_row_of(line, context) for line in islice(lines, _ROWS_AT_ONCE)]:
        yield from _compared(rows, context) if context.job.strategy == "dpo" else _rewarded(rows, context)


def _row_of(line: Line, context: TokenizationContext) -> Row:
    with naming_line(line.number, PREVIEW_SECONDS):
        return preferences.row_of(line.number, line.record, context.source.tokenizer, context.job.task)


def _compared(rows: list[Row], context: TokenizationContext) -> Iterator[TokenizedExample]:
    """For direct preference optimization: the prompt with either answer, which carries the loss."""
    limit, truncation = context.max_length, context.parameters.truncation
    reasons = {row.line: row.left_out(limit, truncation) for row in rows}
    cut = {row.line: row.fitted(context.source.tokenizer, limit, truncation) for row in rows}
    arguments = preference_arguments(context.parameters, _FOLDER)
    kept = _pairs([cut[row.line] for row in rows if reasons[row.line] is None], context, arguments)
    others = _pairs([row for row in rows if row.line not in kept], context, _without_limit(arguments))
    for row in rows:
        pair = kept.get(row.line) or others[row.line]
        yield TokenizedExample(
            row.line,
            (
                _answered("chosen", pair.chosen, pair.chosen_mask, row.lengths[0], limit),
                _answered("rejected", pair.rejected, pair.rejected_mask, row.lengths[1], limit),
            ),
            left_out=reasons[row.line],
        )


def _rewarded(rows: list[Row], context: TokenizationContext) -> Iterator[TokenizedExample]:
    """For rlhf: both answers for the reward model, which rewards a text as a whole, and the prompt for the policy."""
    limit = context.max_length
    room = _room(context)
    arguments = reward_arguments(context.parameters, _FOLDER)
    kept = _judged([row for row in rows if row.size < room], context, arguments)
    others = _judged([row for row in rows if row.line not in kept], context, _without_limit(arguments))
    prompts = rlhf.prompts_of(preferences.dataset_of(rows, context.job.strategy), context.source.tokenizer)
    for row, prompt in zip(rows, prompts, strict=True):
        pair = kept.get(row.line) or others[row.line]
        fits = row.size < room
        too_long = f"An answer ends after {limit} tokens: the reward model does not learn from it."
        yield TokenizedExample(
            row.line,
            (_unlearned("chosen", pair[0], limit), _unlearned("rejected", pair[1], limit)),
            left_out=None if row.line in kept else too_long if fits else row.left_out(room, "right"),
        )
        yield TokenizedExample(
            row.line, (_unlearned("prompt", prompt, room),), left_out=None if fits else row.left_out(room, "right")
        )


def prompts_of(lines: Iterator[Line], context: TokenizationContext) -> Iterator[TokenizedExample]:
    """What a policy is asked that learns from prompts; no reward model learns from the answers to them.

    Raises:
        NoChatTemplate, ChatTemplateFails, WrongRecords: the message names the line, where a template fails.
    """
    room = _room(context)
    for line in lines:
        with naming_line(line.number, PREVIEW_SECONDS):
            turns = policy_prompts.turns_of(line.record, context.source.tokenizer, context.job.task)
            ids = asked_ids(context.source.tokenizer, turns)
        left_out = None if len(ids) < room else f"It has {len(ids)} tokens, and leaves no room for an answer."
        yield TokenizedExample(line.number, (_unlearned("prompt", ids, room),), left_out=left_out)


def _room(context: TokenizationContext) -> int:
    """How many tokens a policy's prompt has room for."""
    return min(context.max_length, policy_prompts.prompt_room(context.model_context, context.parameters))


def _pairs(rows: list[Row], context: TokenizationContext, arguments: DPOConfig) -> dict[int, dpo.Pair]:
    if not rows:
        return {}
    pairs = dpo.pairs_of(preferences.dataset_of(rows, context.job.strategy), context.source.tokenizer, arguments)
    return {pair.line: pair for pair in pairs}


def _judged(
    rows: list[Row], context: TokenizationContext, arguments: RewardConfig
) -> dict[int, tuple[list[int], list[int]]]:
    if not rows:
        return {}
    judged = reward_model.tokenized_pairs(
        preferences.dataset_of(rows, context.job.strategy), context.source.tokenizer, arguments
    )
    return {row[LINE]: (row["chosen_ids"], row["rejected_ids"]) for row in judged}


def _answered(name: SequenceName, ids: list[int], mask: list[int], length: int, limit: int) -> TokenizedSequence:
    # The first token is never predicted.
    loss = [place > 0 and bool(counts) for place, counts in enumerate(mask)]
    return TokenizedSequence(name, ids[:limit], loss[:limit], length, limit)


def _unlearned(name: SequenceName, ids: list[int], limit: int) -> TokenizedSequence:
    cut = ids[:limit]
    return TokenizedSequence(name, cut, [False] * len(cut), len(ids), limit)


def _without_limit(arguments: _Arguments) -> _Arguments:
    """With these nothing is left out: what is not trained on is shown too."""
    changed: Any = copy.copy(arguments)
    changed.max_length = None
    return changed  # type: ignore[no-any-return]
