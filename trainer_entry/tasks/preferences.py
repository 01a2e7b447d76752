"""Preferences: two answers to a prompt, tokenized as trl's trainers take them.

trl would write conversations out itself, without an end where a chat template has none, and plain texts otherwise: it
is given tokens, which are made as those of a supervised training are.
"""

import msgspec
from datasets import Dataset
from msgspec import Struct
from transformers import PreTrainedTokenizerBase
from trl.data_utils import common_prefix_length

from trainer_entry.data.edges import kept_places
from trainer_entry.data.examples import Examples, Rows, in_words
from trainer_entry.data.prompts import answered_ids, asked_ids, summarization_prompt
from trainer_entry.data.records import Preference, Record, Records, Turn
from trainer_entry.data.reward_fields import FIELDS
from trainer_entry.runtime.failures import NoTrainableTokens, WrongRecords, naming_line
from trainer_entry.runtime.stdout import note
from trainer_entry.tasks.policy_prompts import CheckFields, checked_fields, prompt_for_policy
from trainer_entry.wire import Strategy, Task, Truncation


class Row(Struct, frozen=True, gc=False):
    """A preference in tokens. `size`: how many its prompt has by itself; the answers follow `prompt_ids`.

    `prompt`: what a policy is asked, as trl takes it: turns, and a text for a model without a chat template.
    `fields`: those of the record as JSON, where functions reward a policy by them.
    """

    line: int
    size: int
    prompt: str | list[dict[str, str]]
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    fields: str | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """How many tokens the prompt has with either answer."""
        asked = len(self.prompt_ids)
        return asked + len(self.chosen_ids), asked + len(self.rejected_ids)

    def left_out(self, room: int, truncation: Truncation) -> str | None:
        """Why it is not trained on, where it is not."""
        if truncation == "drop" and max(self.lengths) > room:
            return f"It has {max(self.lengths)} tokens, and there is room for {room}."
        if truncation == "right" and self.size >= room:
            return f"Its prompt has {self.size} tokens, and leaves no room for an answer within {room}."
        return None

    def fitted(self, tokenizer: PreTrainedTokenizerBase, room: int, truncation: Truncation) -> "Row":
        """Without the beginning, where that is what goes: trl's collator cuts the end, and no beginning token."""
        if truncation != "left" or max(self.lengths) <= room:
            return self
        asked = self.prompt_ids
        answers = max(len(self.chosen_ids), len(self.rejected_ids))
        begun = int(asked[:1] == [tokenizer.bos_token_id])
        places = kept_places(asked, tokenizer, room - answers, "left") if room - answers > begun else range(begun)
        kept = [asked[place] for place in places]
        left = max(1, room - len(kept))
        return msgspec.structs.replace(
            self, prompt_ids=kept, chosen_ids=self.chosen_ids[-left:], rejected_ids=self.rejected_ids[-left:]
        )


def prepare(
    records: Records,
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    purpose: tuple[Task, Strategy],
    max_length: int,
    truncation: Truncation = "right",
    check_fields: CheckFields | None = None,
) -> Examples:
    """Rows of prompt, chosen and rejected; those at the places in `held_out` are for evaluation.

    A prompt that leaves no room in `max_length` tokens for an answer is left out, but where its beginning is cut.
    `check_fields`: looks at the fields of each record, by which functions reward a policy.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        NoChatTemplate: conversations, for a model that does not say how to write one.
        WrongRecords: a record is no preference.
    """
    task, strategy = purpose
    train, evaluation = PreferenceRows(strategy), PreferenceRows(strategy)
    dropped: list[int] = []
    tokens = cut = 0
    for place, read in enumerate(records.lines()):
        line = read.number
        with naming_line(line):
            row = row_of(line, read.record, tokenizer, task)
        if check_fields is not None:
            row = msgspec.structs.replace(row, fields=checked_fields(read, check_fields))
        if row.left_out(max_length, truncation) is not None:
            dropped.append(line)
            continue
        tokens += row.size
        cut += strategy == "dpo" and max(row.lengths) > max_length
        (evaluation if place in held_out else train).add(row.fitted(tokenizer, max_length, truncation))
    if dropped:
        what = "which have" if truncation == "drop" else "whose prompts have"
        note(f"{len(dropped)} records were left out, {what} {max_length} tokens or more: "
             f"{in_words(dropped)}.")  # fmt: skip
    if cut:
        note(f"{cut} records have more tokens than the {max_length} that there is room for, and are cut.")
    if not train.count or (held_out and not evaluation.count):
        raise NoTrainableTokens(
            f"No prompt leaves room for an answer within {max_length} tokens ({in_words(dropped)}). "
            "Raise max_seq_length, or shorten the prompts."
        )
    return Examples(
        train=train.dataset(), evaluation=evaluation.dataset() if evaluation.count else None, tokens=tokens,
        dropped=len(dropped), cut=cut,
    )  # fmt: skip


def row_of(line: int, record: Record, tokenizer: PreTrainedTokenizerBase, task: Task) -> Row:
    """The record as a row.

    Raises:
        ChatTemplateFails: the model's template cannot write it.
        NoChatTemplate: conversations, for a model that does not say how to write one.
        WrongRecords: it is no preference.
    """
    preference = _preference(record, tokenizer, task)
    asked = asked_ids(tokenizer, preference.prompt)
    chosen, rejected = (
        answered_ids(tokenizer, preference.prompt, answer) for answer in (preference.chosen, preference.rejected)
    )
    # As trl has it: an answer begins where the texts part, which is before the prompt's end where tokens merge there.
    shared = min(common_prefix_length(asked, chosen), common_prefix_length(asked, rejected))
    prompt = prompt_for_policy(preference.prompt, tokenizer)
    return Row(line, len(asked), prompt, asked[:shared], chosen[shared:], rejected[shared:])


class PreferenceRows:
    """Rows as the trainers of a strategy take them, with their lines.

    `dpo` compares answers to a prompt: `prompt_ids`, `chosen_ids` and `rejected_ids`. For `rlhf` the latter two are
    whole texts, which a reward model reads, and `prompt` is what a policy completes.
    """

    def __init__(self, strategy: Strategy) -> None:
        self._compares = strategy == "dpo"
        self._rows = Rows(*(("prompt_ids",) if self._compares else ()), "chosen_ids", "rejected_ids")
        self._prompts: list[str | list[dict[str, str]]] = []
        self._fields: list[str] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return self._rows.count

    def add(self, row: Row) -> None:
        """One more."""
        if self._compares:
            self._rows.add(
                line=row.line, prompt_ids=row.prompt_ids, chosen_ids=row.chosen_ids, rejected_ids=row.rejected_ids
            )
            return
        self._rows.add(
            line=row.line, chosen_ids=row.prompt_ids + row.chosen_ids, rejected_ids=row.prompt_ids + row.rejected_ids
        )
        self._prompts.append(row.prompt)
        if row.fields is not None:
            self._fields.append(row.fields)

    def dataset(self) -> Dataset:
        """All of them."""
        rows = self._rows.dataset()
        if self._compares:
            return rows
        rows = rows.add_column("prompt", self._prompts)
        return rows.add_column(FIELDS, self._fields) if self._fields else rows


def dataset_of(rows: list[Row], strategy: Strategy) -> Dataset:
    """The rows as the trainers of a strategy take them."""
    found = PreferenceRows(strategy)
    for row in rows:
        found.add(row)
    return found.dataset()


def _preference(record: Record, tokenizer: PreTrainedTokenizerBase, task: Task) -> Preference:
    if not isinstance(record, Preference):
        raise WrongRecords(f"A {type(record).__name__.lower()} is no preference: send prompt, chosen and rejected.")
    if task != "summarization" or len(record.prompt) != 1:
        return record
    asked = Turn("user", summarization_prompt(tokenizer, record.prompt[0].content))
    return msgspec.structs.replace(record, prompt=[asked])
