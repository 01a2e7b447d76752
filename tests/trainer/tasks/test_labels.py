"""The loss is on the answers and on nothing else."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import pytest
from support.tiny_model import CHATML, build_tiny_model
from support.trainer_attempts import questions, write_dataset
from transformers import AutoTokenizer

from trainer_entry.data.edges import end_token_ids
from trainer_entry.data.prompts import prompt_ids
from trainer_entry.data.records import Conversation, InputOutput, Records, ToolCall, Turn
from trainer_entry.runtime.failures import ChatTemplateFails, NoChatTemplate, NoTrainableTokens
from trainer_entry.tasks.text_generation import IGNORED, LabelledTokens, label, prepare
from trainer_entry.wire.mixture import held_out_of

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

# As SmolLM2 has it: a system prompt of its own, and no end for it to be told apart by.
WITH_DEFAULT_SYSTEM_PROMPT = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "<|im_start|>system\nyou are a helpful cook<|im_end|>\n{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama 2 and Mistral have it: it writes the beginning token, and nothing before an answer but a space.
INSTRUCTION = (
    "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
)
# No special token at all.
PLAIN = (
    "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
# As reasoning models have it: earlier answers are written otherwise than the last one.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}(thought) {% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# As those that are trained to call tools have it.
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\ntools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}"
    "call: {{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Gemma and Mistral have it.
ALTERNATING = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}"
)

CONVERSATION = Conversation(
    [
        Turn("system", "be brief"),
        Turn("user", "Why does bread rise?"),
        Turn("assistant", "Yeast,\nand its bubbles — 🍞."),
        Turn("user", "What is blanching?"),
        Turn("assistant", "  Boil briefly.  "),
    ]
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_model)


def learned(example: LabelledTokens, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Each run of tokens that carry loss, as text."""
    assert len(example.input_ids) == len(example.labels)
    assert all(lab in (IGNORED, token) for token, lab in zip(example.input_ids, example.labels, strict=True))
    runs = groupby(example.labels, key=lambda token: token != IGNORED)
    return [tokenizer.decode(list(run)) for carries_loss, run in runs if carries_loss]


@pytest.mark.parametrize(
    ("template", "answers"),
    [
        (CHATML, ["Yeast,\nand its bubbles — 🍞.<|im_end|>", "  Boil briefly.  <|im_end|>"]),
        (WITH_DEFAULT_SYSTEM_PROMPT, ["Yeast,\nand its bubbles — 🍞.<|im_end|>", "  Boil briefly.  <|im_end|>"]),
        (INSTRUCTION, [" Yeast,\nand its bubbles — 🍞.</s>", "   Boil briefly.  </s>"]),
        (PLAIN, ["Yeast,\nand its bubbles — 🍞.\n", "  Boil briefly.  \n<|im_end|>"]),
    ],
    ids=["chatml", "default system prompt", "instruction", "plain"],
)
def test_every_answer_with_its_end_is_learned_and_nothing_else(
    template: str, answers: list[str], tokenizer: PreTrainedTokenizerBase
) -> None:
    tokenizer.chat_template = template
    # when
    examples = list(label(CONVERSATION, tokenizer))
    # then
    assert [learned(example, tokenizer) for example in examples] == [answers]


def test_a_call_and_the_answer_are_learned_and_the_result_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = WITH_TOOLS
    call = ToolCall("weather", {"city": "Oslo"})
    turns = [Turn("user", "Weather in Oslo?"), Turn("assistant", "", tool_calls=(call,)), Turn("tool", "4 C")]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    # when
    (example,) = label(Conversation([*turns, Turn("assistant", "It is cold.")], [tool]), tokenizer)
    # then
    assert learned(example, tokenizer) == ['call: weather {"city": "Oslo"}<|im_end|>', "It is cold.<|im_end|>"]
    text = tokenizer.decode(example.input_ids)
    assert text.startswith('<|im_start|>system\ntools: [{"type": "function", "function": {"name": "weather"')
    assert "<|im_start|>tool\n4 C<|im_end|>" in text


def test_a_template_that_knows_no_tools_is_said(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    turns = [Turn("user", "Why?"), Turn("assistant", "", tool_calls=(ToolCall("look", {}),))]
    with pytest.raises(ChatTemplateFails, match="knows no tools"):
        list(label(Conversation(turns), tokenizer))


def test_an_answer_that_does_not_count_is_read_and_not_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    turns = [Turn("user", "1?"), Turn("assistant", "Bad", learned=False), Turn("user", "2?"), Turn("assistant", "Good")]
    (example,) = label(Conversation(turns), tokenizer)
    assert learned(example, tokenizer) == ["Good<|im_end|>"]
    assert "Bad" in tokenizer.decode(example.input_ids)


def test_turns_of_one_speaker_are_joined_where_a_template_wants_them_to_alternate(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    turns = [Turn("user", "One."), Turn("user", "Two?"), Turn("assistant", "Three.")]
    # when
    tokenizer.chat_template = CHATML
    (as_they_are,) = label(Conversation(turns), tokenizer)
    tokenizer.chat_template = ALTERNATING + CHATML
    (joined,) = label(Conversation(turns), tokenizer)
    # then
    assert "One.<|im_end|>" in tokenizer.decode(as_they_are.input_ids)
    assert "One.\n\nTwo?<|im_end|>" in tokenizer.decode(joined.input_ids)
    assert learned(joined, tokenizer) == ["Three.<|im_end|>"]


def test_a_template_that_rewrites_history_gives_an_example_for_each_answer(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokenizer.chat_template = FORGETFUL
    # when
    examples = list(label(CONVERSATION, tokenizer))
    # then
    assert [learned(example, tokenizer) for example in examples] == [
        ["(thought) Yeast,\nand its bubbles — 🍞.<|im_end|>"],
        ["(thought)   Boil briefly.  <|im_end|>"],
    ]
    assert "(thought) Yeast" not in tokenizer.decode(examples[1].input_ids)


@pytest.mark.parametrize("template", [CHATML, WITH_DEFAULT_SYSTEM_PROMPT, INSTRUCTION, None])
def test_the_playground_asks_as_training_did(template: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = template
    # given
    (example,) = label(InputOutput("Why does bread rise?", "Yeast."), tokenizer)
    first = next(place for place, token in enumerate(example.labels) if token != IGNORED)
    # then
    assert prompt_ids(tokenizer, "Why does bread rise?") == example.input_ids[:first]
    assert [token for token in example.labels if token != IGNORED][-1] in end_token_ids(tokenizer, None)
    assert example.input_ids.count(tokenizer.bos_token_id) <= 1


def test_without_a_template_the_answer_and_an_end_are_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    (example,) = label(InputOutput("Why?", "Yeast."), tokenizer)
    assert learned(example, tokenizer) == ["Yeast." + tokenizer.eos_token]


def test_a_conversation_needs_a_template(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    with pytest.raises(NoChatTemplate, match="chat template"):
        list(label(CONVERSATION, tokenizer))


def test_a_conversation_without_an_answer_teaches_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    (example,) = label(Conversation([Turn("user", "Why?")]), tokenizer)
    assert learned(example, tokenizer) == []


def test_a_template_that_writes_nothing_teaches_nothing_but_the_end(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{# #}"
    (example,) = label(InputOutput("Why?", "Yeast."), tokenizer)
    assert (example.input_ids, example.labels) == ([tokenizer.eos_token_id], [tokenizer.eos_token_id])


def test_what_is_cut_off_is_left_out_and_counted(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer.chat_template = CHATML
    # given
    rows = [*questions(6), {"input": "long " * 200, "output": "never seen"}]
    records = Records(write_dataset(tmp_path / "rows.jsonl", rows))
    # when
    tokenized = prepare(records, frozenset({0, 3}), tokenizer, 40)
    # then
    assert (len(tokenized.train), len(tokenized.evaluation or [])) == (4, 2)
    assert tokenized.dropped == 1
    assert "1 records were left out, with no answer within 40 tokens: line 7." in capsys.readouterr().err
    assert all(len(row["input_ids"]) <= 40 for row in tokenized.train)


def test_nothing_left_to_learn_is_a_failure(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.chat_template = CHATML
    records = Records(write_dataset(tmp_path / "rows.jsonl", questions(3)))
    with pytest.raises(NoTrainableTokens, match="max_seq_length"):
        prepare(records, frozenset(), tokenizer, 4)


def test_the_seed_decides_what_is_held_out() -> None:
    assert held_out_of(64, 0.125, 7) == held_out_of(64, 0.125, 7) != held_out_of(64, 0.125, 8)
    assert [len(held_out_of(count, share, 0)) for count, share in ((64, 0.125), (64, 0), (3, 0.01), (2, 0.9))] == [
        8,
        0,
        1,
        1,
    ]


def test_a_model_without_a_template_is_built(tmp_path: Path) -> None:
    bare = AutoTokenizer.from_pretrained(build_tiny_model(tmp_path / "bare", chat_template=None))
    (example,) = label(InputOutput("Why?", "Yeast."), bare)
    assert learned(example, bare) == ["Yeast.</s>"]
