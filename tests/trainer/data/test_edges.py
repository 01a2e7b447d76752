"""One token begins a text and one ends it, whichever tokenizer, template, strategy and hand wrote them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from support.tiny_model import CHATML, build_tiny
from support.trainer_attempts import job_of
from tokenizers import processors
from transformers import AutoTokenizer

from trainer_entry import wire
from trainer_entry.data.edges import edges_of, end_token_ids, text_ids, trim
from trainer_entry.data.examples import IGNORED
from trainer_entry.data.prompts import prompt_ids
from trainer_entry.data.records import Conversation, InputOutput, Preference, Record, Turn
from trainer_entry.strategies import dpo, reward_model, rlhf
from trainer_entry.tasks import preferences
from trainer_entry.tasks.text_generation import label
from trainer_entry.training.arguments import preference_arguments, reward_arguments
from trainer_entry.training.defaults import resolve_parameters
from trainer_entry.wire.formats import Text

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

# The libraries warn of their own doings.
pytestmark = pytest.mark.filterwarnings("default::FutureWarning")

BEGIN, END = "<s>", "</s>"
TEMPLATES = {
    "none": None,
    # As Llama 2 and Mistral have it.
    "both": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
        "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    ),
    "neither": (
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    ),
    # As Zephyr has it: turns end with the eos token.
    "end": (
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}"
    ),
    # As Qwen's base models and Llama 3 have it: a turn ends with another token than a text.
    "turn end": "<s>" + CHATML,
}
"""What chat templates write. The tokenizer's eos token is `</s>`."""
ADDED = {"begin": "<s> $A", "both": "<s> $A </s>", "nothing": "$A", "spaces": "<s> $A"}
"""What tokenizers add; one of them puts a space before every text."""
ANSWERS = [
    "Yeast.",
    "Yeast.{end}",
    "Yeast. {end}",
    "Yeast.\n{end}\n",
    "Yeast.{end}{end}",
    "Yeast.{turn}",
    "Yeast.{other}",
]
PROMPTS = ["Why?", "<s>Why?", " <s>Why?", "<s><s>Why?", "Why?{end}"]


@pytest.fixture(scope="module")
def tokenizers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedTokenizerBase]:
    found: dict[str, PreTrainedTokenizerBase] = {}
    for name, single in ADDED.items():
        tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
        if name == "spaces":
            tokenizer = AutoTokenizer.from_pretrained(build_tiny(tmp_path_factory.mktemp("t5") / "model", "t5"))
            tokenizer.add_special_tokens({"bos_token": BEGIN, "additional_special_tokens": [BEGIN, "<|im_end|>"]})
        tokenizer.eos_token = END
        ids = [(token, tokenizer.get_vocab()[token]) for token in (BEGIN, END)]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
        found[name] = tokenizer
    return found


@pytest.fixture(params=ADDED)
def added(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(added: str, template: str, tokenizers: dict[str, PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    found = copy.copy(tokenizers[added])
    found.chat_template = TEMPLATES[template]
    return found


def end_of(template: str) -> str:
    return "<|im_end|>" if template == "turn end" else END


def written(text: str, template: str) -> str:
    end = end_of(template)
    return text.format(end=end, turn="<|im_end|>", other=END)


def begins(template: str, added: str) -> int:
    """How many tokens begin a text: a template has the last word, then the tokenizer."""
    if TEMPLATES[template] is None:
        return int(added != "nothing")
    return int(template in {"both", "turn end"})


def count(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[int, int]:
    """How many beginnings there are, and how many ends at the end."""
    vocabulary = tokenizer.get_vocab()
    ends = {vocabulary[END], vocabulary["<|im_end|>"]}
    text = [token for token in ids if token in ends or tokenizer.decode([token]).strip() not in {"", "<unk>"}]
    last = next((place for place, token in enumerate(reversed(text)) if token not in ends), len(text))
    return ids.count(vocabulary[BEGIN]), last


def learned_ends(tokenizer: PreTrainedTokenizerBase, ids: list[int], counts: list[bool]) -> list[str]:
    vocabulary = tokenizer.get_vocab()
    names = {vocabulary[END]: END, vocabulary["<|im_end|>"]: "<|im_end|>"}
    return [names[token] for token, carries in zip(ids, counts, strict=True) if carries and token in names]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_an_answer_is_begun_and_ended_once(
    prompt: str, tokenizer: PreTrainedTokenizerBase, template: str, added: str
) -> None:
    for answer in ANSWERS:
        _holds_for_an_answer(written(prompt, template), written(answer, template), tokenizer, template, added)


def _holds_for_an_answer(asked: str, told: str, tokenizer: PreTrainedTokenizerBase, template: str, added: str) -> None:
    by_hand = TEMPLATES[template] is None and BEGIN in asked
    records: list[Record] = [InputOutput(asked, told)]
    if TEMPLATES[template] is not None:
        records.append(Conversation([Turn("user", asked), Turn("assistant", told)]))
    for record in records:
        # when
        (example,) = label(record, tokenizer)
        # then
        carries = [token != IGNORED for token in example.labels]
        assert count(tokenizer, example.input_ids) == (max(begins(template, added), by_hand), 1)
        assert learned_ends(tokenizer, example.input_ids, carries) == [end_of(template)]
        first = carries.index(True)
        assert example.input_ids[:first] == prompt_ids(tokenizer, asked)[:first]
        assert prompt_ids(tokenizer, asked) == prompt_ids(tokenizer, asked.replace(END, "").replace("<|im_end|>", ""))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_preferences_are_begun_and_ended_once(
    prompt: str, tokenizer: PreTrainedTokenizerBase, template: str, added: str, tmp_path: Path
) -> None:
    for answer in ANSWERS:
        asked, told = written(prompt, template), written(answer, template)
        _holds_for_preferences(asked, told, tokenizer, begins(template, added), template, tmp_path)


def _holds_for_preferences(
    asked: str, told: str, tokenizer: PreTrainedTokenizerBase, begun: int, template: str, folder: Path
) -> None:
    by_hand = TEMPLATES[template] is None and BEGIN in asked
    edges = max(begun, by_hand), 1
    record = Preference([Turn("user", asked)], [Turn("assistant", told)], [Turn("assistant", f"No. {told}")])
    row = preferences.row_of(1, record, tokenizer, "text-generation")
    parameters = resolve_parameters(job_of(wire.TrainingParameters(max_seq_length=200)))
    # when
    (pair,) = dpo.pairs_of(
        preferences.dataset_of([row], "dpo"), tokenizer, preference_arguments(parameters, str(folder))
    )
    rows = preferences.dataset_of([row], "rlhf")
    (judged,) = reward_model.tokenized_pairs(rows, tokenizer, reward_arguments(parameters, str(folder)))
    (policy,) = rlhf.prompts_of(rows, tokenizer)
    # then each answer's one end is compared
    for ids, mask in ((pair.chosen, pair.chosen_mask), (pair.rejected, pair.rejected_mask)):
        assert count(tokenizer, ids) == edges
        assert learned_ends(tokenizer, ids, list(map(bool, mask))) == [end_of(template)]
    # and the reward model, the policy and a supervised training read the same
    assert (judged["chosen_ids"], judged["rejected_ids"]) == (pair.chosen, pair.rejected)
    assert policy == prompt_ids(tokenizer, asked)
    (supervised,) = label(InputOutput(asked, told), tokenizer)
    assert supervised.input_ids == pair.chosen
    assert end_token_ids(tokenizer, None).count(tokenizer.get_vocab()[end_of(template)]) == 1


def test_a_completion_is_rewarded_as_an_answer_was(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    from trl.data_utils import apply_chat_template

    record = Preference([Turn("user", "<s>Why?")], [Turn("assistant", "Yeast.")], [Turn("assistant", "No.")])
    row = preferences.row_of(1, record, tokenizer, "text-generation")
    # when trl puts prompt and completion together
    reading: Any = rlhf.RewardReading(tokenizer)
    told = "Yeast."
    text = (
        row.prompt + told
        if isinstance(row.prompt, str)
        else apply_chat_template({"messages": [*row.prompt, {"role": "assistant", "content": told}]}, reading)["text"]
    )
    batch = reading(text=[text, text + text], return_tensors="pt", padding=True, add_special_tokens=False)
    # then
    kept = batch["attention_mask"][0].bool()
    expected = row.prompt_ids + row.chosen_ids
    found = batch["input_ids"][0][kept].tolist()
    if template == "none" or "<s>" not in text.removeprefix(BEGIN):
        assert found == expected
    assert found[-3:] == expected[-3:]


@pytest.mark.parametrize(
    "text",
    [
        "<s>[INST] Why? [/INST] Yeast.",
        "<s>[INST] Why? [/INST] Yeast. </s>",
        "[INST] Why? [/INST] Yeast.</s>\n",
        "<s>[INST] Why? [/INST] Yeast.</s></s>",
        "Yeast.<|im_end|>",
    ],
)
def test_a_text_is_begun_and_ended_once(
    text: str, tokenizer: PreTrainedTokenizerBase, template: str, added: str
) -> None:
    (example,) = label(Text(text), tokenizer)
    assert example.labels == example.input_ids
    assert count(tokenizer, example.input_ids) == (max(int(added != "nothing"), BEGIN in text), 1)
    stays = template == "turn end" and "<|im_end|>" in text
    ends = learned_ends(tokenizer, example.input_ids, [True] * len(example.input_ids))
    assert ends == ["<|im_end|>" if stays else END]


def test_an_end_in_the_middle_is_content(tokenizer: PreTrainedTokenizerBase) -> None:
    (example,) = label(InputOutput("Why?", "Write </s> at the end."), tokenizer)
    assert learned_ends(tokenizer, example.input_ids, [token != IGNORED for token in example.labels])[0] == END
    assert len(learned_ends(tokenizer, example.labels, [True] * len(example.labels))) == 2


def test_a_text_without_edges_is_left_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in ("  Boil briefly. \n", "", " ", "</sofa>", "a <s> b"):
        assert trim(text, edges_of(tokenizer)).text == text
    assert text_ids(tokenizer, "</s>")[-1] == tokenizer.eos_token_id


def test_a_token_that_both_begins_and_ends_stands_at_either_edge(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build_tiny(tmp_path / "gpt2", "gpt2"))
    tokenizer.bos_token = end = tokenizer.eos_token
    bread, number = tokenizer("Bread")["input_ids"], tokenizer.eos_token_id
    assert text_ids(tokenizer, "Bread") == [*bread, number]
    assert text_ids(tokenizer, f"{end}Bread {end}\n") == [number, *bread, number]


def test_turns_that_are_joined_have_no_end_between_them(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    if TEMPLATES[template] is None:
        pytest.skip("It writes no conversations.")
    alternating = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}"
    )
    tokenizer.chat_template = alternating + str(TEMPLATES[template])
    turns = [Turn("user", "Why?"), Turn("assistant", f"Yeast.{END}"), Turn("assistant", f"Gas.{END}")]
    (example,) = label(Conversation(turns), tokenizer)
    assert learned_ends(tokenizer, example.input_ids, [t != IGNORED for t in example.labels]) == [end_of(template)]
