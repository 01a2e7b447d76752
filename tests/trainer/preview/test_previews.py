"""What is shown of a dataset is, token by token, what the trainer then trains on."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import task_records
from support.tiny_model import CHATML, Architecture, build_tiny, build_tiny_model
from support.trainer_attempts import child_environment, job_of, questions, write_dataset
from transformers import AutoTokenizer

from trainer_entry import train, wire
from trainer_entry.data.examples import IGNORED
from trainer_entry.data.records import Records
from trainer_entry.dataset_view import answer
from trainer_entry.preview.length_statistics import places_of
from trainer_entry.preview.token_text import token_texts
from trainer_entry.runtime.failures import ChatTemplateFails, ModelUnavailable, NoChatTemplate
from trainer_entry.training.defaults import resolve_parameters, with_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from trainer_entry.data.examples import Examples
    from trainer_entry.providers.huggingface import LoadedModel
    from trainer_entry.training.trainer import AttemptTrainer
    from trainer_entry.wire import TrainingParameters

# The libraries warn of their own doings.
pytestmark = pytest.mark.filterwarnings("default::FutureWarning")

ASKED, TOLD = {"role": "user", "content": "Why — 🍞?"}, {"role": "assistant", "content": "Yeast 🍞."}
LONG = {"role": "user", "content": "far " * 60}
# As reasoning models have it: earlier answers are written otherwise than the last one.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}(thought) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system!') }}{% endif %}{% endfor %}"
    + CHATML
)


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "llama": tiny_model,
        "plain": build_tiny_model(folder / "plain", chat_template=None),
        "forgetful": build_tiny_model(folder / "forgetful", chat_template=FORGETFUL),
        "strict": build_tiny_model(folder / "strict", chat_template=STRICT),
        "t5": build_tiny(folder / "t5", "t5"),
        "bart": build_tiny(folder / "bart", "bart"),
        "bert": build_tiny(folder / "bert", "bert"),
        "gpt2": build_tiny(folder / "gpt2", "gpt2"),
    }


def job_on(records: list[dict[str, Any]], folder: Path, model: Path, **fields: Any) -> wire.JobSpec:
    """A job; what is no parameter in `fields` is the job's own."""
    names = fields.keys() & set(wire.TrainingParameters.__struct_fields__)
    parameters = msgspec.convert({name: fields.pop(name) for name in names}, wire.TrainingParameters)
    dataset = write_dataset(folder / "records.jsonl", records)
    places = {"output_dir": str(folder / "output"), "checkpoint_dir": str(folder / "checkpoints")}
    return job_of(parameters, model_path=str(model), dataset=dataset, **places, **fields)


def preview(job: wire.JobSpec, limit: int = 100) -> wire.DatasetPreview:
    shown = answer(wire.PreviewRequest(job=job, revision=1, deadline_seconds=60, limit=limit))
    assert isinstance(shown, wire.DatasetPreview)
    return shown


def statistics(job: wire.JobSpec, sample: int = 1000) -> wire.DatasetStatistics:
    measured = answer(wire.StatisticsRequest(job=job, revision=1, deadline_seconds=60, sample=sample))
    assert isinstance(measured, wire.DatasetStatistics)
    return measured


def kept(shown: wire.DatasetPreview) -> Iterator[tuple[int, wire.ExampleView]]:
    """The examples that are trained on, with their lines."""
    for record in shown.records:
        assert isinstance(record.examples, tuple)
        yield from ((record.line, example) for example in record.examples if example.left_out is None)


def ids(sequence: wire.SequenceView) -> list[int]:
    return [token.id for token in sequence.tokens]


def loss(sequence: wire.SequenceView) -> list[bool]:
    return [token.loss for token in sequence.tokens]


@dataclasses.dataclass
class Prepared:
    """A job's way to its trainer, as `train.run` goes it."""

    job: wire.JobSpec
    parameters: TrainingParameters
    loaded: LoadedModel
    examples: Examples


def prepared(job: wire.JobSpec) -> Prepared:
    parameters = resolve_parameters(job)
    loaded = train.load_model(job, parameters)
    parameters = with_model(parameters, job, loaded.context, encoder_decoder=loaded.is_encoder_decoder)
    examples = train.prepare_examples(
        job, Records(job.dataset, eval_split=parameters.eval_split, seed=parameters.seed), loaded, parameters
    )
    return Prepared(job, parameters, loaded, examples)


def trainer_of(job: wire.JobSpec) -> AttemptTrainer:
    found = prepared(job)
    if job.strategy == "dpo":
        from trainer_entry.strategies import dpo

        return dpo.build_trainer(job, found.loaded, found.examples, found.parameters)
    from trainer_entry.strategies import sft

    return sft.build_trainer(job, found.loaded, found.examples, found.parameters)


def batches(trainer: AttemptTrainer) -> list[dict[str, Any]]:
    """Each row of the trainer's dataset as its model gets it."""
    rows: Any = trainer.train_dataset
    collate: Any = trainer._get_collator_with_removed_columns(trainer.data_collator)  # noqa: SLF001
    return [collate([row]) for row in rows]


@pytest.mark.parametrize(
    ("model", "records", "left_out"),
    [
        (
            "llama",
            [{"messages": [ASKED, TOLD, ASKED, TOLD]}, {"messages": [LONG, TOLD]}, {"messages": [ASKED]}],
            [2, 3],
        ),
        ("forgetful", [{"messages": [ASKED, TOLD, ASKED, TOLD]}] * 2, []),
        ("llama", [{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "x" * 90}]}], []),
        ("llama", [{"prompt": [ASKED, TOLD, ASKED], "completion": [TOLD]}], []),
        ("plain", [*questions(2), {"input": "far " * 60, "output": "away"}], [3]),
        ("plain", [{"instruction": "Say", "input": "it", "output": "It."}], []),
        ("plain", [{"text": "Bread rises."}, {"text": "far — 🍞 " * 60}], []),
        ("gpt2", [{"prompt": "Why?", "completion": "Yeast."}], []),
    ],
    ids=["messages", "forgetful", "sharegpt", "turns", "input", "alpaca", "text", "gpt2"],
)
def test_texts_are_shown_as_they_are_trained_on(
    model: str, records: list[dict[str, Any]], left_out: list[int], models: dict[str, Path], tmp_path: Path
) -> None:
    job = job_on(records, tmp_path, models[model], max_seq_length=64, use_lora=False)
    # when
    shown, trained = preview(job), batches(trainer_of(job))
    # then
    sequences = [sequence for _, example in kept(shown) for sequence in example.sequences]
    assert [ids(sequence) for sequence in sequences] == [batch["input_ids"][0].tolist() for batch in trained]
    for sequence, batch in zip(sequences, trained, strict=True):
        carries = [label != IGNORED for label in batch["labels"][0].tolist()]
        assert loss(sequence) == [False, *carries[1:]]
        assert len(sequence.tokens) == min(sequence.length, 64)
    assert {line for line, _ in kept(shown)} == {*range(1, len(records) + 1)} - {*left_out}
    assert [record.line for record in shown.records] == [*range(1, len(records) + 1)]


@pytest.mark.parametrize("truncation", ["right", "left", "drop"])
@pytest.mark.parametrize("strategy", ["sft", "dpo"])
def test_what_is_cut_is_shown_and_counted_as_in_training(
    strategy: wire.Strategy, truncation: wire.Truncation, models: dict[str, Path], tmp_path: Path
) -> None:
    far = "far " * 60
    texts = [("Why?", "Yes."), ("Why?", far), (far, "Yes."), (far, far)]
    records = [
        {"input": asked, "output": told} if strategy == "sft" else {"prompt": asked, "chosen": told, "rejected": "No."}
        for asked, told in texts
    ]
    job = job_on(records, tmp_path, models["llama"], strategy=strategy, max_seq_length=64, truncation=truncation)
    # when
    shown, found, examples, trained = preview(job), statistics(job), prepared(job).examples, batches(trainer_of(job))
    # then
    assert (found.left_out, found.cut) == (examples.dropped, examples.cut)
    assert (found.left_out, found.cut) == {"right": (2, 1), "left": (0, 3), "drop": (3, 0)}[truncation]
    read = [ids(sequence) for _, example in kept(shown) for sequence in example.sequences]
    assert read == [
        row[mask.bool()].tolist()
        for batch in trained
        for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    assert max(map(len, read)) <= 64


@pytest.mark.parametrize("model", ["llama", "t5", "bart"])
def test_summaries_are_shown_as_they_are_trained_on(model: str, models: dict[str, Path], tmp_path: Path) -> None:
    records = [*task_records.summaries(3), {"document": "short", "summary": " "}]
    job = job_on(records, tmp_path, models[model], task="summarization", max_seq_length=200 if model == "llama" else 20)
    # when
    shown, trained = preview(job), batches(trainer_of(job))
    # then
    for (_, example), batch in zip(kept(shown), trained, strict=True):
        first, *others = example.sequences
        assert ids(first) == batch["input_ids"][0].tolist()
        if model == "llama":
            assert loss(first) == [label != IGNORED for label in batch["labels"][0].tolist()]
            continue
        (target,) = others
        assert (first.name, target.name) == ("source", "target")
        assert ids(target) == batch["labels"][0].tolist()
        assert all(loss(target))
        assert not any(loss(first))
        assert (len(first.tokens), first.length > 20) == (20, True)


@pytest.mark.parametrize(("length", "stride"), [(24, 4), (None, 128)])
def test_questions_are_shown_as_they_are_trained_on(
    length: int | None, stride: int, models: dict[str, Path], tmp_path: Path
) -> None:
    records = task_records.questions(16)
    job = job_on(
        records, tmp_path, models["bert"], task="extractive-question-answering", max_seq_length=length,
        doc_stride=stride,
    )  # fmt: skip
    # when
    shown, trained = preview(job), batches(trainer_of(job))
    # then
    for (_, example), batch in zip(kept(shown), trained, strict=True):
        (window,) = example.sequences
        assert ids(window) == batch["input_ids"][0].tolist()
        assert (window.start, window.end) == (int(batch["start_positions"]), int(batch["end_positions"]))
        assert [place for place, carries in enumerate(loss(window)) if carries] == sorted({window.start, window.end})
    assert shown.seen_with is not None
    assert shown.seen_with.max_seq_length == (length or shown.seen_with.context)


@pytest.mark.parametrize(("model", "task"), [("llama", "text-generation"), ("plain", "summarization")])
def test_preferences_are_shown_as_dpo_trains_on_them(
    model: str, task: wire.Task, models: dict[str, Path], tmp_path: Path
) -> None:
    records = [*task_records.preferences(3), {"prompt": "far " * 60, "chosen": "Yes.", "rejected": "No."}]
    job = job_on(records, tmp_path, models[model], task=task, strategy="dpo", max_seq_length=60)
    # when
    shown, trained = preview(job), batches(trainer_of(job))
    # then
    assert [line for line, _ in kept(shown)] == [1, 2, 3]
    for (_, example), batch in zip(kept(shown), trained, strict=True):
        assert [sequence.name for sequence in example.sequences] == ["chosen", "rejected"]
        for side, sequence in enumerate(example.sequences):
            there = batch["attention_mask"][side].bool()
            assert ids(sequence) == batch["input_ids"][side][there].tolist()
            assert loss(sequence) == batch["completion_mask"][side][there].bool().tolist()
    (lost,) = shown.records[3].examples or ()
    assert lost.left_out is not None
    assert "leaves no room" in lost.left_out


@pytest.mark.parametrize("model", ["llama", "plain"])
@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_preferences_are_shown_as_rlhf_trains_on_them(
    model: str, algorithm: str, models: dict[str, Path], tmp_path: Path
) -> None:
    from trainer_entry.strategies import reward_model, rlhf

    records = [
        *({"prompt": f"Is it {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(4)),
        {"prompt": "Is it?", "chosen": "Yes.", "rejected": "No, " * 90},
        {"prompt": "far " * 60, "chosen": "Yes.", "rejected": "No."},
    ]
    job = job_on(
        records, tmp_path, models[model], strategy="rlhf", max_seq_length=60, max_completion_length=8,
        rl_algorithm=algorithm,
    )  # fmt: skip
    # given both trainers
    found = prepared(job)
    phases: Any = KeepingTrainer()
    with pytest.raises(TrainerKeptError):
        reward_model.train_reward_model(phases, job, found.loaded, found.examples, found.parameters, lambda *_: None)
    rewards = reward_model.RewardModel(
        phases.trainer.model, found.loaded.tokenizer, reward_model.RewardReport(0, {}), None
    )
    policy: Any = rlhf.build_policy(job, prepared(job).loaded, rewards, found.examples, found.parameters)
    # then
    seen = list(kept(preview(job)))
    judged = [example for _, example in seen if example.sequences[0].name == "chosen"]
    assert [[ids(sequence) for sequence in example.sequences] for example in judged] == [
        [row["chosen_ids"], row["rejected_ids"]] for row in phases.trainer.train_dataset
    ]
    assert len(judged) == 4
    asked = [example.sequences[0] for _, example in seen if example.sequences[0].name == "prompt"]
    prompts, *_ = policy._tokenize_prompts([row["prompt"] for row in policy.train_dataset])  # noqa: SLF001
    assert [ids(sequence) for sequence in asked] == prompts
    assert len(asked) == 5


@pytest.mark.parametrize("model", ["llama", "plain"])
def test_prompts_are_shown_as_a_policy_is_asked_them(model: str, models: dict[str, Path], tmp_path: Path) -> None:
    from trainer_entry.strategies import rlhf

    records = [*({"prompt": f"Is it {n}?", "tests": [n]} for n in range(4)), {"prompt": "far " * 60}]
    settings = {"max_seq_length": 60, "max_completion_length": 8, "reward_functions": ["format_tags"]}
    job = job_on(records, tmp_path, models[model], strategy="rlhf", **settings)
    found = prepared(job)
    asked = [example.sequences for _, example in kept(preview(job))]
    assert [ids(sequence) for (sequence,) in asked] == rlhf.prompts_of(found.examples.train, found.loaded.tokenizer)
    assert [ids(sequence) for (sequence,) in asked] == found.examples.train["prompt_ids"][:]
    assert (len(asked), found.examples.dropped) == (4, 1)


@pytest.mark.parametrize("algorithm", ["rloo", "grpo"])
def test_a_policy_can_end_as_its_template_ends_a_turn(algorithm: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    from trainer_entry.strategies import reward_model, rlhf

    # given a tokenizer whose texts end otherwise than turns do
    model = build_tiny_model(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = "</s>"  # noqa: S105 - no password
    tokenizer.save_pretrained(model)
    records = [{"prompt": f"Is it {n}?", "chosen": "Yes.", "rejected": "No."} for n in range(4)]
    job = job_on(records, tmp_path, model, strategy="rlhf", max_completion_length=8, rl_algorithm=algorithm)
    found = prepared(job)
    judge = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    rewards = reward_model.RewardModel(judge, found.loaded.tokenizer, reward_model.RewardReport(0, {}), None)
    # when
    policy: Any = rlhf.build_policy(job, found.loaded, rewards, found.examples, found.parameters)
    # then
    ends = {tokenizer.convert_tokens_to_ids(token) for token in ("</s>", "<|im_end|>")}
    assert ends <= set(policy.eos_token_ids)
    assert ends <= set(policy.generation_config.eos_token_id)


class TrainerKeptError(Exception):
    pass


class KeepingTrainer:
    """Phases that train nothing."""

    spec = wire.AttemptSpec(job=job_of(wire.TrainingParameters()), attempt=1, token="ours", cpu_threads=1)  # noqa: S106

    def train(self, trainer: AttemptTrainer, *_: object, **__: object) -> None:
        self.trainer = trainer
        raise TrainerKeptError


TEXTS = st.lists(
    st.sampled_from(["bread", " ", "Über", "—", "🍞", "👩‍🍳", "7", "\n", "rice", "é", "\x00"]), max_size=20
).map("".join)


@pytest.mark.parametrize("architecture", ["bert", "t5", "gpt2", "roberta"])
def test_the_texts_of_the_tokens_are_the_text(
    architecture: Architecture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = build_tiny(tmp_path_factory.mktemp("tokenizer") / "model", architecture)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)

    @settings(max_examples=60)
    @given(text=TEXTS)
    def holds(text: str) -> None:
        numbers = tokenizer(text)["input_ids"]
        pieces = token_texts(tokenizer, numbers)
        assert len(pieces) == len(numbers)
        assert "".join(pieces) == tokenizer.decode(numbers, clean_up_tokenization_spaces=False)

    holds()


def test_a_cut_character_is_told_as_what_it_is(models: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models["llama"])
    numbers = tokenizer("🍞🍞")["input_ids"][:-1]
    assert token_texts(tokenizer, numbers)[3] == "🍞"
    assert "".join(token_texts(tokenizer, numbers)) == tokenizer.decode(numbers)


def test_a_template_that_refuses_a_record_is_told_by_its_line(models: dict[str, Path], tmp_path: Path) -> None:
    turns = [{"messages": [ASKED, TOLD]}, {"messages": [{"role": "system", "content": "Be brief"}, ASKED, TOLD]}]
    with pytest.raises(ChatTemplateFails, match=r"Line 2 of the dataset: .*No system!"):
        preview(job_on(turns, tmp_path, models["strict"]))
    with pytest.raises(NoChatTemplate):
        preview(job_on(turns, tmp_path, models["plain"]))


def test_a_file_that_became_a_link_since_is_not_read(models: dict[str, Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(models["llama"], model)
    (tmp_path / "secret").write_text("a secret")
    (model / "chat_template.jinja").unlink()
    (model / "chat_template.jinja").symlink_to("../secret")
    job = job_on([{"messages": [ASKED, TOLD]}], tmp_path, model)
    for read in (preview, prepared):
        with pytest.raises(ModelUnavailable, match=r"chat_template\.jinja is not read: it is a link"):
            read(job)


def test_a_context_of_very_many_windows_is_not_shown_to_its_end(models: dict[str, Path], tmp_path: Path) -> None:
    context = "yeast " * 30_000
    records = [{"context": context, "question": "What?", "answer": "yeast"}] * 3
    job = job_on(records, tmp_path, models["bert"], task="extractive-question-answering", max_seq_length=32)
    shown = preview(job)
    (record,) = shown.records
    assert isinstance(record.examples, tuple)
    assert shown.has_more
    assert sum(len(sequence.tokens) for example in record.examples for sequence in example.sequences) < 50_032
    assert len(record.examples) + int(record.more_examples or 0) == statistics(job, sample=1).examples


def test_a_training_names_the_line_too(models: dict[str, Path], tmp_path: Path) -> None:
    turns = [{"messages": [ASKED, TOLD]}, {"messages": [{"role": "system", "content": "Be brief"}, ASKED, TOLD]}]
    with pytest.raises(ChatTemplateFails, match=r"Line 2 of the dataset: .*No system!"):
        prepared(job_on(turns, tmp_path, models["strict"]))
    asked = {"prompt": turns[1]["messages"][:2], "chosen": [TOLD], "rejected": "No."}
    with pytest.raises(ChatTemplateFails, match=r"Line 1 of the dataset: .*No system!"):
        prepared(job_on([asked], tmp_path, models["strict"], strategy="dpo"))
    with pytest.raises(ChatTemplateFails, match=r"Line 1 of the dataset: .*No system!"):
        preview(job_on([asked], tmp_path, models["strict"], strategy="dpo"))


def test_an_answer_that_a_template_refuses_is_told_of(models: dict[str, Path], tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief"}
    records = [{"prompt": [ASKED], "chosen": [system, TOLD], "rejected": "No."}]
    for strategy in ("dpo", "rlhf"):
        job = job_on(records, tmp_path, models["strict"], strategy=strategy, max_completion_length=8)
        with pytest.raises(ChatTemplateFails, match=r"Line 1 of the dataset: .*No system!"):
            preview(job)


def test_lengths_are_counted_and_what_is_cut_or_lost(models: dict[str, Path], tmp_path: Path) -> None:
    records = [{"text": "🍞" * n} for n in range(1, 41)]  # four tokens each, and an end
    records.append({"text": "a"})
    job = job_on(records, tmp_path, models["plain"], max_seq_length=101)
    # when
    found = statistics(job)
    # then
    (lengths,) = found.lengths
    expected = sorted([*(4 * n + 1 for n in range(1, 41)), 2])
    assert (found.measured, found.examples, found.left_out, lengths.count) == (41, 41, 0, 41)
    assert lengths.mean == pytest.approx(sum(expected) / 41)
    assert (lengths.quantiles.min, lengths.quantiles.p50, lengths.quantiles.max) == (2, expected[20], 161)
    assert (lengths.truncated, lengths.truncated_share) == (15, pytest.approx(15 / 41))
    assert sum(lengths.histogram.counts) == 41
    assert (lengths.histogram.edges[0], lengths.histogram.edges[-1], len(lengths.histogram.edges)) == (2, 161, 21)
    assert found.tokens == sum(min(length, 101) for length in expected)
    assert found.loss_tokens == found.tokens - 41


def test_examples_without_a_token_to_learn_are_counted(models: dict[str, Path], tmp_path: Path) -> None:
    records = [*questions(3), *({"input": "far " * 60, "output": "away"} for _ in range(120))]
    found = statistics(job_on(records, tmp_path, models["llama"], max_seq_length=64))
    assert (found.examples, found.left_out) == (123, 120)
    assert found.left_out_lines == tuple(range(4, 104))
    whole = preview(job_on(records[:3], tmp_path, models["llama"], max_seq_length=64))
    sequences = [sequence for _, example in kept(whole) for sequence in example.sequences]
    assert found.tokens == sum(len(sequence.tokens) for sequence in sequences)
    assert found.loss_tokens == sum(sum(loss(sequence)) for sequence in sequences)


def test_a_sample_is_spread_over_the_file_and_always_the_same(models: dict[str, Path], tmp_path: Path) -> None:
    records = [{"text": "🍞" * n} for n in range(1, 101)]
    job = job_on(records, tmp_path, models["plain"])
    found = statistics(job, sample=4)
    assert (found.measured, found.num_examples) == (4, 100)
    assert (found.lengths[0].quantiles.min, found.lengths[0].quantiles.max) == (5, 4 * 76 + 1)
    assert statistics(job, sample=4) == found


@given(count=st.integers(1, 5000), sample=st.integers(1, 300))
def test_places_are_as_many_as_asked_for_and_evenly_apart(count: int, sample: int) -> None:
    places = places_of(count, sample)
    if places is None:
        assert count <= sample
        return
    ordered = sorted(places)
    assert len(ordered) == sample
    assert ordered[0] == 0
    assert ordered[-1] < count
    gaps = {after - before for before, after in pairwise(ordered)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.training
@pytest.mark.parametrize("provider", ["huggingface", "unsloth"])
def test_the_process_answers_whatever_is_printed(
    provider: wire.Provider, models: dict[str, Path], tmp_path: Path
) -> None:
    # given a library that prints when it is imported
    noisy = (
        "import sys\nsys.addaudithook(lambda event, got: print('!') if (event, got[0]) == ('import', 'torch') else 0)"
    )
    (tmp_path / "noisy").mkdir()
    (tmp_path / "noisy" / "sitecustomize.py").write_text(noisy)
    environment = child_environment()
    environment["PYTHONPATH"] = f"{tmp_path / 'noisy'}{os.pathsep}{environment['PYTHONPATH']}"
    job = job_on(questions(3), tmp_path, models["llama"], provider=provider)
    # when
    done = subprocess.run(
        [sys.executable, "-m", "trainer_entry.dataset_view"],
        input=msgspec.json.encode(wire.PreviewRequest(job=job, revision=7, deadline_seconds=60, limit=2)),
        env=environment,
        capture_output=True,
        check=True,
    )
    # then
    shown = msgspec.json.decode(done.stdout, type=wire.DatasetPreview)
    assert (shown.revision, shown.has_more, [record.line for record in shown.records]) == (7, True, [1, 2])
    assert b"!" in done.stderr
    assert shown.seen_with is not None
    assert (shown.seen_with.provider, shown.seen_with.max_seq_length) == (provider, 256)
    assert shown == msgspec.structs.replace(preview(job, limit=2), revision=7)


@pytest.mark.training
def test_the_process_ends_by_itself_where_a_template_does_not(tmp_path: Path) -> None:
    endless = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
    model = build_tiny_model(tmp_path / "model", chat_template=endless)
    job = job_on(questions(3), tmp_path, model)
    done = subprocess.run(
        [sys.executable, "-m", "trainer_entry.dataset_view"],
        input=msgspec.json.encode(wire.PreviewRequest(job=job, revision=1, deadline_seconds=1, limit=2)),
        env=child_environment(),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGALRM, b"")
