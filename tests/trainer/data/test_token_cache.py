"""Records that were tokenized before are read again where they would become the same, and only there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, job_of, questions, write_dataset

from modelforge.layout import Layout
from modelforge.supervisor.trash import remove_dataset_files
from trainer_entry import wire
from trainer_entry.data import token_cache
from trainer_entry.data.token_cache import key_of, remembered

pytestmark = [pytest.mark.slow, pytest.mark.training]


class Cached:
    """A dataset, a tokenizer, and how often records were tokenized."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self.model = build_tiny_model(folder / "model")
        self.tokenizer = AutoTokenizer.from_pretrained(self.model)
        self.config = AutoConfig.from_pretrained(self.model)
        self.folder = folder / "tokenized"
        self.dataset = write_dataset(folder / "data.jsonl", questions(20))
        self.parameters = wire.TrainingParameters(eval_split=0.2)
        self.made = 0

    def key(self, length: int = 64, **parameters: Any) -> str | None:
        changed = msgspec.structs.replace(self.parameters, **parameters)
        return key_of(job_of(changed, dataset=self.dataset), changed, length, self.tokenizer, self.config)

    def examples(self, **parameters: Any) -> Any:
        from trainer_entry.data.records import Records
        from trainer_entry.tasks import text_generation

        def make() -> Any:
            self.made += 1
            records = Records(self.dataset, eval_split=0.2)
            return text_generation.prepare(records, records.held_out, self.tokenizer, 64)

        return remembered(str(self.folder), lambda: self.key(**parameters), make, [self.dataset.sha256])


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cached:
    monkeypatch.setattr(token_cache, "WORTHWHILE_BYTES", 0)
    monkeypatch.setattr(token_cache, "_SPARED_BYTES", 0)
    return Cached(tmp_path)


def rows(examples: Any) -> Any:
    return (examples.train.to_list(), examples.evaluation.to_list(), examples.tokens, examples.dropped, examples.cut)


def test_the_second_time_the_same_rows_are_read_and_nothing_is_tokenized(cached: Cached) -> None:
    first, second = cached.examples(), cached.examples()
    assert cached.made == 1
    assert rows(first) == rows(second)
    (entry,) = cached.folder.iterdir()
    assert {path.name for path in entry.iterdir()} == {"entry.json", "train.arrow", "evaluation.arrow"}
    assert {path.stat().st_mode & 0o077 for path in (cached.folder, entry)} == {0}


@pytest.mark.parametrize(
    "change",
    [
        lambda cached: setattr(cached.tokenizer, "chat_template", "{{ messages }}"),
        lambda cached: setattr(cached.tokenizer, "eos_token", "?"),
        lambda cached: cached.tokenizer.add_tokens(["another"]),
        lambda cached: setattr(cached.tokenizer, "padding_side", "left"),
        lambda cached: setattr(cached.tokenizer, "model_max_length", 7),
        lambda cached: setattr(cached, "dataset", msgspec.structs.replace(cached.dataset, sha256="0" * 64)),
        lambda cached: setattr(cached, "dataset", msgspec.structs.replace(cached.dataset, format="alpaca")),
        lambda cached: setattr(cached, "parameters", msgspec.structs.replace(cached.parameters, seed=1)),
        lambda cached: setattr(cached, "parameters", msgspec.structs.replace(cached.parameters, eval_split=0.1)),
        lambda cached: setattr(cached, "parameters", msgspec.structs.replace(cached.parameters, truncation="drop")),
        lambda cached: setattr(cached, "parameters", msgspec.structs.replace(cached.parameters, packing=True)),
        lambda cached: setattr(cached, "parameters", msgspec.structs.replace(cached.parameters, doc_stride=7)),
        lambda cached: setattr(cached.config, "max_position_embeddings", 7),
    ],
)
def test_what_decides_the_tokens_is_in_the_key(cached: Cached, change: Callable[[Cached], None]) -> None:
    before = cached.key()
    assert cached.key() == before
    change(cached)
    assert cached.key() != before


def test_the_room_and_the_libraries_are_in_the_key(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cached.key()
    assert cached.key(length=63) != before
    assert cached.key(learning_rate=1.0) == before
    monkeypatch.setattr(token_cache, "version", lambda _: "0")
    assert cached.key() != before


@pytest.mark.parametrize("harm", ["cut", "changed", "without its rows", "without its end"])
def test_an_entry_that_is_not_whole_is_made_anew(cached: Cached, harm: str) -> None:
    first = cached.examples()
    (entry,) = cached.folder.iterdir()
    arrow = entry / "train.arrow"
    match harm:
        case "cut":
            arrow.write_bytes(arrow.read_bytes()[:-10])
        case "changed":
            arrow.write_bytes(arrow.read_bytes().replace(b"\1", b"\2"))
        case "without its rows":
            arrow.unlink()
        case _:
            (entry / "entry.json").write_text("{")
    assert rows(cached.examples()) == rows(first)
    assert cached.made == 2
    cached.examples()
    assert cached.made == 2


def test_what_was_used_the_longest_time_ago_goes_first(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    cached.examples()
    (first,) = cached.folder.iterdir()
    size = sum(path.stat().st_size for path in first.iterdir())
    monkeypatch.setattr(token_cache, "MOST_BYTES", int(size * 2.5))
    os.utime(first, (1, 1))
    for seed in (1, 2):
        cached.examples(seed=seed)
    kept = {path.name for path in cached.folder.iterdir()}
    assert kept == {cached.key(seed=1), cached.key(seed=2)}


def test_nothing_goes_for_what_is_too_large_to_be_kept(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    cached.examples()
    (first,) = cached.folder.iterdir()
    monkeypatch.setattr(token_cache, "MOST_BYTES", 1)
    cached.examples(seed=1)
    assert [*cached.folder.iterdir()] == [first]


def test_what_a_template_makes_of_the_day_is_not_kept(cached: Cached) -> None:
    cached.tokenizer.chat_template = "{{ strftime_now('%d') }}{{ messages }}"
    assert cached.key() is None


def test_of_several_processes_the_first_one_keeps_it(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    cached.examples()
    assert not cached.folder.exists()


def test_tokens_go_with_the_dataset_that_they_are_of(cached: Cached, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for folder in (layout.datasets, layout.trash):
        folder.mkdir(parents=True)
    cached.examples()
    remove_dataset_files([f"{'0' * 64}.jsonl"], layout)
    assert len([*layout.tokenized.iterdir()]) == 1
    remove_dataset_files([f"{cached.dataset.sha256}.jsonl"], layout)
    assert [*layout.tokenized.iterdir()] == [*layout.trash.iterdir()] == []


def test_a_cache_that_cannot_be_written_costs_nothing(cached: Cached) -> None:
    cached.folder.write_text("in the way")
    assert rows(cached.examples()) == rows(cached.examples())
    assert cached.made == 2


def test_a_small_file_is_tokenized_anew(cached: Cached, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "WORTHWHILE_BYTES", 1 << 20)
    cached.examples()
    assert not cached.folder.exists()


def test_the_next_attempt_reads_what_the_first_one_kept(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model")
    dataset = write_dataset(tmp_path / "data.jsonl", [{**one, "output": one["output"] * 20} for one in questions(2000)])
    kept = tmp_path / "tokenized"
    attempts = []
    for number in (1, 2):
        attempt = Attempt(tmp_path / str(number), model, dataset, tokenized=str(kept), max_steps=1)
        assert attempt.wait() == 0, attempt.stderr()
        attempts.append(attempt)
    first, second = attempts
    assert "tokenized before" not in first.stderr()
    assert "tokenized before" in second.stderr()
    assert [step.loss for step in first.of_type(wire.StepLogged)] == [
        step.loss for step in second.of_type(wire.StepLogged)
    ]
    assert second.one(wire.TrainerStarted).train_examples == 2000
