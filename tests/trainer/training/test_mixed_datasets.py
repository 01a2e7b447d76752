"""What a real trainer reads of several datasets, and of one to evaluate on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support.trainer_attempts import Attempt, questions, write_dataset

from trainer_entry import wire
from trainer_entry.data.records import InputOutput, Records
from trainer_entry.wire.mixture import mixed, taken_of

if TYPE_CHECKING:
    from pathlib import Path


def parts_of(folder: Path) -> tuple[wire.DatasetPart, ...]:
    """Twenty questions two and a half times, three of ten, and texts of another format, between empty lines."""
    asked = write_dataset(folder / "asked.jsonl", questions(20))
    few = write_dataset(folder / "few.jsonl", [{"input": f"few {n}", "output": f"{n}"} for n in range(10)])
    talks = [
        {"messages": [{"role": "user", "content": f"talk {n}"}, {"role": "assistant", "content": f"{n}"}]}
        for n in range(4)
    ]
    talked = write_dataset(folder / "talked.jsonl", talks)
    return (
        wire.DatasetPart(dataset=asked, weight=2.5, taken=taken_of(20, 2.5, None)),
        wire.DatasetPart(dataset=few, max_samples=3, taken=taken_of(10, 1, 3)),
        wire.DatasetPart(dataset=talked, taken=4),
    )


def test_records_are_read_as_often_as_was_counted_and_none_held_out_twice(tmp_path: Path) -> None:
    records = Records(mixed(parts_of(tmp_path), 3), eval_split=0.25, seed=3)
    read = [*records.by_line()]
    judged = {line for place, (line, _) in enumerate(read) if place in records.held_out}
    learned = Counter(line for place, (line, _) in enumerate(read) if place not in records.held_out)
    assert len(records.held_out) == len(judged) == 5 + 1 + 1
    assert not judged & set(learned)
    assert {learned[line] for line in range(1, 21) if line not in judged} == {2, 3}
    assert sum(learned.values()) == 15 + 15 + 8 + 2 + 3
    assert {line for line in (*learned, *judged) if 20 < line <= 30} != set(range(21, 31))
    assert all(isinstance(record, InputOutput) is (line <= 30) for line, record in read)


@pytest.mark.training
def test_a_trainer_learns_from_the_mixture_and_is_judged_by_the_other_dataset(tmp_path: Path, tiny_model: Path) -> None:
    judge = write_dataset(tmp_path / "judge.jsonl", questions(6))
    attempt = Attempt(
        tmp_path / "attempt",
        tiny_model,
        mixed(parts_of(tmp_path), 3),
        validation=judge,
        max_steps=2,
        per_device_train_batch_size=2,
    )
    assert attempt.wait() == 0, attempt.stderr()
    started = attempt.one(wire.TrainerStarted)
    assert (started.train_examples, started.eval_examples) == (50 + 3 + 4, 6)
    finished = attempt.one(wire.TrainerFinished)
    assert finished.model is not None
    assert {"eval_loss", "base_eval_loss"} <= set(finished.model.metrics)
    card = (attempt.output / "README.md").read_text()
    assert all(name in card for name in ("asked.jsonl", "few.jsonl", "talked.jsonl", "judge.jsonl", "50, of 20"))
