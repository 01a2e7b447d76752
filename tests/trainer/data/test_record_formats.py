"""What the records of each format for text generation mean, which of their tokens carry loss, and that they train."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from datasets import Dataset
from support.tiny_model import build_tiny_model
from support.trainer_attempts import Attempt, job_of, write_dataset
from transformers import AutoTokenizer
from trl.trainer.sft_trainer import SFTTrainer

from trainer_entry import wire
from trainer_entry.data.records import (
    Conversation,
    InputOutput,
    Preference,
    Question,
    Record,
    Records,
    Span,
    ToolCall,
    Turn,
)
from trainer_entry.runtime.failures import NoChatTemplate
from trainer_entry.tasks.text_generation import IGNORED, fitted, label
from trainer_entry.training.arguments import completion_arguments
from trainer_entry.training.defaults import resolve_parameters, with_model
from trainer_entry.wire.formats import Text

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

ASKED = {"role": "user", "content": "Why?"}
TOLD = {"role": "assistant", "content": "Yeast."}
PARTS = {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "y?"}]}
CALLED = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CALL = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, PreTrainedTokenizerBase]:
    """With a chat template, and without."""
    bare = build_tiny_model(tmp_path_factory.mktemp("bare") / "model", chat_template=None)
    return {True: AutoTokenizer.from_pretrained(tiny_model), False: AutoTokenizer.from_pretrained(bare)}


def record_of(line: dict[str, Any], folder: Path) -> Record:
    (record,) = Records(write_dataset(folder / "record.jsonl", [line]))
    return record


def learned(record: Record, tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokens that carry loss, as text."""
    (example,) = label(record, tokenizer)
    return str(tokenizer.decode([token for token in example.labels if token != IGNORED]))


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ({"prompt": "Why?", "completion": "Yeast."}, InputOutput("Why?", "Yeast.")),
        ({"instruction": "Why?", "output": "Yeast."}, InputOutput("Why?", "Yeast.")),
        ({"instruction": "Why?", "input": None, "output": "Yeast."}, InputOutput("Why?", "Yeast.")),
        ({"instruction": "Why?", "input": " \n", "output": "Yeast."}, InputOutput("Why?", "Yeast.")),
        ({"instruction": "Why?", "input": "Bread", "output": "Yeast."}, InputOutput("Why?\n\nBread", "Yeast.")),
        ({"text": "Bread rises."}, Text("Bread rises.")),
        (
            {"prompt": [ASKED, TOLD, ASKED], "completion": [TOLD]},
            Conversation(
                [
                    *(Turn("user", "Why?", learned=False), Turn("assistant", "Yeast.", learned=False)),
                    *(Turn("user", "Why?", learned=False), Turn("assistant", "Yeast.")),
                ]
            ),
        ),
        (
            {"prompt": [ASKED], "completion": "Yeast."},
            Conversation([Turn("user", "Why?", learned=False), Turn("assistant", "Yeast.")]),
        ),
        (
            {"conversations": [{"from": "system", "value": "Be brief"}, {"from": "human", "value": "Why?"}, TOLD]},
            Conversation([Turn("system", "Be brief"), Turn("user", "Why?"), Turn("assistant", "Yeast.")]),
        ),
        ({"conversations": [ASKED, TOLD]}, Conversation([Turn("user", "Why?"), Turn("assistant", "Yeast.")])),
        *(
            (
                {"conversations": [{"from": asks, "value": "Why?"}, {"from": tells, "value": "Yeast."}]},
                Conversation([Turn("user", "Why?"), Turn("assistant", "Yeast.")]),
            )
            for asks in ("user", "human")
            for tells in ("gpt", "assistant", "chatgpt", "bard", "bing", "model")
        ),
        (
            {"system": "Be brief", "conversations": [ASKED, TOLD]},
            Conversation([Turn("system", "Be brief"), Turn("user", "Why?"), Turn("assistant", "Yeast.")]),
        ),
        (
            {"input": "Why?", "output": "Yeast.", "system": "Be brief"},
            Conversation([Turn("system", "Be brief"), Turn("user", "Why?"), Turn("assistant", "Yeast.")]),
        ),
        ({"input": "Why?", "output": "Yeast.", "system": ""}, InputOutput("Why?", "Yeast.")),
        (
            {"instruction": "How?", "output": "So.", "system": "Be brief", "history": [["Why?", "Yeast."]]},
            Conversation(
                [
                    *(Turn("system", "Be brief"), Turn("user", "Why?"), Turn("assistant", "Yeast.", learned=False)),
                    *(Turn("user", "How?"), Turn("assistant", "So.")),
                ]
            ),
        ),
        (
            {"messages": [ASKED, {**TOLD, "weight": 0}, ASKED, {**TOLD, "weight": 1}, ASKED, {**TOLD, "train": False}]},
            Conversation(
                [
                    *(Turn("user", "Why?"), Turn("assistant", "Yeast.", learned=False)),
                    *(Turn("user", "Why?"), Turn("assistant", "Yeast.")),
                    *(Turn("user", "Why?"), Turn("assistant", "Yeast.", learned=False)),
                ]
            ),
        ),
        (
            {"messages": [{"role": "developer", "content": "Be brief"}, PARTS, {**TOLD, "name": "Ann"}, ASKED]},
            Conversation([Turn("system", "Be brief"), Turn("user", "Why?"), Turn("assistant", "Yeast.", name="Ann")]),
        ),
        *(
            (line, Preference([Turn("user", "Why?")], [Turn("assistant", "Yeast.")], [Turn("assistant", "No.")]))
            for line in (
                {"prompt": "Why?", "chosen": "Yeast.", "rejected": "No."},
                {"prompt": "Why?", "chosen": [ASKED, TOLD], "rejected": [ASKED, {**TOLD, "content": "No."}]},
                {"chosen": [ASKED, TOLD], "rejected": [ASKED, {**TOLD, "content": "No."}]},
                {"chosen": "\n\nHuman: Why?\n\nAssistant: Yeast.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
            )
        ),
        (
            {
                "chosen": "Human: Why?\n\nAssistant: Human: ask.\n\nHuman: How?\n\nAssistant: So.",
                "rejected": "Human: Why?\n\nAssistant: Human: ask.\n\nHuman: How?\n\nAssistant: No.",
            },
            Preference(
                [Turn("user", "Why?"), Turn("assistant", "Human: ask."), Turn("user", "How?")],
                [Turn("assistant", "So.")],
                [Turn("assistant", "No.")],
            ),
        ),
        (
            {"system": "Be brief", "prompt": "Why?", "chosen": "Yeast.", "rejected": "No."},
            Preference(
                [Turn("system", "Be brief"), Turn("user", "Why?")],
                [Turn("assistant", "Yeast.")],
                [Turn("assistant", "No.")],
            ),
        ),
        (
            {"conversations": [{"from": "gpt", "value": "Ask me."}, ASKED, TOLD]},
            Conversation(
                [Turn("assistant", "Ask me.", learned=False), Turn("user", "Why?"), Turn("assistant", "Yeast.")]
            ),
        ),
        (
            {
                "messages": [ASKED, CALL, {"role": "tool", "tool_call_id": "c1", "content": "4 C"}, TOLD],
                "tools": [TOOL],
            },
            Conversation(
                [
                    *(
                        Turn("user", "Why?"),
                        Turn("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo"}, "c1"),)),
                    ),
                    *(Turn("tool", "4 C", tool_call_id="c1"), Turn("assistant", "Yeast.")),
                ],
                [TOOL],
            ),
        ),
        (
            {
                "conversations": [
                    ASKED,
                    {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
                    {"from": "observation", "value": "4 C"},
                    TOLD,
                ],
                "tools": json.dumps([TOOL["function"]]),
            },
            Conversation(
                [
                    *(Turn("user", "Why?"), Turn("assistant", "", tool_calls=(ToolCall("weather", {"city": "Oslo"}),))),
                    *(Turn("tool", "4 C"), Turn("assistant", "Yeast.")),
                ],
                [TOOL],
            ),
        ),
    ],
)
def test_a_record_means_the_same_in_every_spelling(line: dict[str, Any], means: Record, tmp_path: Path) -> None:
    assert record_of(line, tmp_path) == means


def test_a_turn_without_a_word_is_named_by_its_line(tmp_path: Path) -> None:
    lines = [{"conversations": [ASKED, TOLD]}, {"conversations": [{"from": "human"}]}]
    with pytest.raises(ValueError, match="Line 2 of the dataset: A turn of a conversation says nothing"):
        list(Records(write_dataset(tmp_path / "records.jsonl", lines)))


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "Why?", "completion": "Yeast."},
        {"prompt": [ASKED], "completion": [TOLD]},
        {"prompt": [ASKED, {"role": "assistant", "content": "Gas."}, ASKED], "completion": [TOLD]},
        {"instruction": "Why?", "input": "Bread", "output": "Yeast."},
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Yeast."}]},
    ],
    ids=["texts", "turns", "turns with an answer in the prompt", "alpaca", "sharegpt"],
)
def test_the_answer_is_learned_and_not_what_it_answers(
    line: dict[str, Any], tokenizers: dict[bool, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    assert learned(record_of(line, tmp_path), tokenizers[True]) == "Yeast.<|im_end|>"


def test_an_instruction_stands_in_the_prompt_without_a_word_around_it(
    tokenizers: dict[bool, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    record = record_of({"instruction": "Why?", "input": "Bread", "output": "Yeast."}, tmp_path)
    (example,) = label(record, tokenizers[True])
    assert tokenizers[True].decode(example.input_ids) == (
        "<|im_start|>user\nWhy?\n\nBread<|im_end|>\n<|im_start|>assistant\nYeast.<|im_end|>\n"
    )


def test_turns_need_a_template_and_texts_do_not(
    tokenizers: dict[bool, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    with pytest.raises(NoChatTemplate):
        learned(record_of({"prompt": [ASKED], "completion": [TOLD]}, tmp_path), tokenizers[False])
    assert learned(record_of({"prompt": "Why?", "completion": "Yeast."}, tmp_path), tokenizers[False]) == "Yeast.</s>"


@pytest.mark.parametrize("has_template", [True, False])
@pytest.mark.parametrize("text", ["Bread rises.\nYeast fills it — 🍞.", "ended{end}", "a" * 400])
def test_a_text_is_learned_as_trl_learns_it(
    text: str,
    has_template: bool,  # noqa: FBT001
    tokenizers: dict[bool, PreTrainedTokenizerBase],
    tmp_path: Path,
) -> None:
    tokenizer = tokenizers[has_template]
    text = text.replace("{end}", str(tokenizer.eos_token))
    job = job_of(wire.TrainingParameters(max_seq_length=64))
    # given what trl makes of it
    trainer: Any = type("Trainer", (), {"_tokenizer": tokenizer, "chat_template": None, "completion_only_loss": False})
    parameters = with_model(resolve_parameters(job), job, 64, encoder_decoder=False)
    arguments = completion_arguments(parameters, str(tmp_path))
    rows = SFTTrainer._prepare_dataset(  # noqa: SLF001 - what its constructor does with a dataset
        trainer, Dataset.from_list([{"text": text}]), tokenizer, arguments, packing=False, formatting_func=None,
        dataset_name="train",
    )  # fmt: skip
    # then
    (example,) = fitted(Text(text), tokenizer, 64)
    assert (example.input_ids, example.labels) == (rows[0]["input_ids"], rows[0]["labels"])
    assert example.is_cut == (len(text) > 64)


def test_a_text_begins_and_ends_as_its_tokenizer_has_it(tokenizers: dict[bool, PreTrainedTokenizerBase]) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizers[False]
    backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    before = backend.post_processor
    backend.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    try:
        (example,) = label(Text("Bread"), tokenizer)
    finally:
        backend.post_processor = before
    assert tokenizer.decode(example.input_ids) == "<s>Bread</s>"
    assert example.labels == example.input_ids


@pytest.mark.training
@pytest.mark.parametrize(
    "lines",
    [
        [{"prompt": f"What is {i}?", "completion": f"It is {i}."} for i in range(12)],
        [{"instruction": "Say it", "input": str(i), "output": f"It is {i}."} for i in range(12)],
        [{"conversations": [{"from": "human", "value": str(i)}, {"from": "gpt", "value": "Yes."}]} for i in range(12)],
        [{"text": f"Bread number {i} rises."} for i in range(12)],
    ],
    ids=["prompt_completion", "alpaca", "conversations", "text"],
)
def test_a_model_learns_from_them(lines: list[dict[str, Any]], tiny_model: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "records.jsonl", lines)
    attempt = Attempt(tmp_path / "attempt", tiny_model, dataset, max_steps=6, learning_rate=0.02)
    assert attempt.wait() == 0, attempt.stderr()
    losses = [step.loss for step in attempt.of_type(wire.StepLogged)]
    assert None not in losses
    assert losses[-1] < losses[0]
    assert attempt.one(wire.TrainerStarted).train_examples == 12


@pytest.mark.parametrize(("start", "place"), [(None, 4), (4, 4), (26, 26)])
def test_an_answer_stands_where_the_record_says(start: int | None, place: int, tmp_path: Path) -> None:
    context = "Ada wrote it in 1843, and wrote it again."
    line = {"context": context, "question": "What?", "answer": "wrote it", "answer_start": start}
    assert record_of(line, tmp_path) == Question(context, "What?", [Span("wrote it", place)])
    nothing = line | {"answer": "", "answer_start": -1}
    assert record_of(nothing, tmp_path) == Question(context, "What?", [])
