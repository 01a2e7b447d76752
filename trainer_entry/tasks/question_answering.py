"""Extractive question answering: windows of contexts in, with where the answers stand in them."""
# mypy: allow-untyped-calls

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from trainer_entry.data.examples import MEASURED_RECORDS, Examples, Measure, Rows, examples_of
from trainer_entry.data.records import Question, Record, Records
from trainer_entry.runtime.failures import WrongRecords
from trainer_entry.tasks.context_windows import Window, best_span, label, windows
from trainer_entry.tasks.metrics import exact_match_and_f1

_WINDOWS_AT_ONCE = 16
_MEASURED_QUESTIONS = 10 * MEASURED_RECORDS
"""No token is generated for an answer, so that more of them can be judged."""


def prepare(
    records: Records,
    held_out: frozenset[int],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
) -> Examples:
    """Cut every context into windows that overlap by `stride` tokens, and label the answer in each.

    A window without the answer teaches that it has none, by its first token.

    Raises:
        NoTrainableTokens: nothing to learn from is left.
        WrongRecords: a record is no question.
    """
    columns = ["input_ids", "attention_mask"]
    if "token_type_ids" in tokenizer.model_input_names:
        columns.append("token_type_ids")
    numbers = ("start_positions", "end_positions")
    train, evaluation = Rows(*columns, numbers=numbers), Rows(*columns, numbers=numbers)
    measured: list[Question] = []
    dropped: list[int] = []
    unanswerable = False
    for place, (line, record) in enumerate(records.by_line()):
        question = question_of(record)
        unanswerable = unanswerable or not question.answers
        if place in held_out and len(measured) < _MEASURED_QUESTIONS:
            measured.append(question)
        cut = labelled(question, tokenizer, max_length, stride)
        if is_lost(question, cut):
            dropped.append(line)
            continue
        rows = evaluation if place in held_out else train
        for window, (start, end) in cut:
            tokens = {"input_ids": window.input_ids, "attention_mask": window.attention_mask}
            if len(columns) > len(tokens):
                tokens["token_type_ids"] = window.token_type_ids or [0] * len(window.input_ids)
            rows.add(line=line, start_positions=start, end_positions=end, **tokens)
    measure = _measure(measured, tokenizer, max_length, stride, allow_null=unanswerable)
    return examples_of(train, evaluation, dropped, max_length, held_out=bool(held_out), measure=measure)


def question_of(record: Record) -> Question:
    """The record, if it is a question on a context.

    Raises:
        WrongRecords: it is not.
    """
    if isinstance(record, Question):
        return record
    raise WrongRecords(f"A {type(record).__name__.lower()} is no question on a context.")


def labelled(
    question: Question, tokenizer: PreTrainedTokenizerBase, max_length: int, stride: int
) -> list[tuple[Window, tuple[int, int]]]:
    """The windows over the question's context, with the places of the answer's first and last token in each."""
    cut = windows(tokenizer, question.question, question.context, max_length, stride)
    return [(window, label(window, question.answers)) for window in cut]


def is_lost(question: Question, cut: list[tuple[Window, tuple[int, int]]]) -> bool:
    """Whether there is an answer, and every window cuts it apart: they would teach that there is none."""
    return bool(question.answers) and all(span == (window.null, window.null) for window, span in cut)


def _measure(
    questions: list[Question],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    stride: int,
    *,
    allow_null: bool,
) -> Measure | None:
    """Exact match and F1 of a model's answers."""
    if not questions:
        return None

    def measure(model: Any, alive: Callable[[], None]) -> dict[str, float | None]:
        answers: list[str] = []
        for question in questions:
            alive()
            cut = windows(tokenizer, question.question, question.context, max_length, stride)
            starts, ends = logits_of(model, tokenizer, cut)
            answers.append(best_span(cut, starts, ends, question.context, allow_null=allow_null).text)
        return exact_match_and_f1(answers, [[span.text for span in question.answers] for question in questions])

    return measure


def logits_of(
    model: Any, tokenizer: PreTrainedTokenizerBase, cut: list[Window]
) -> tuple[list[list[float]], list[list[float]]]:
    """For each token of each window, how likely an answer starts and ends there."""
    starts: list[list[float]] = []
    ends: list[list[float]] = []
    for begin in range(0, len(cut), _WINDOWS_AT_ONCE):
        some = cut[begin : begin + _WINDOWS_AT_ONCE]
        features: list[dict[str, Any]] = [
            {"input_ids": window.input_ids, "attention_mask": window.attention_mask}
            | ({} if window.token_type_ids is None else {"token_type_ids": window.token_type_ids})
            for window in some
        ]
        padded = tokenizer.pad(features, padding_side="right", return_tensors="pt").to(model.device)
        with torch.no_grad():
            outputs = model(**padded)
        for row, window in enumerate(some):
            length = len(window.input_ids)
            starts.append(outputs.start_logits[row, :length].float().tolist())
            ends.append(outputs.end_logits[row, :length].float().tolist())
    return starts, ends
