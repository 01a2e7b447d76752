"""Each reward function on completions whose reward is known."""

from __future__ import annotations

import re
import string
import time
from decimal import Decimal
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as some

from trainer_entry.rewards.functions import Completion, has_format, length_reward, score_of
from trainer_entry.wire.reward_texts import number_of
from trainer_entry.wire.rewards import (
    ExactMatch,
    FormatTags,
    JsonSchema,
    LengthReward,
    NumberMatch,
    RegularExpression,
    RewardFunction,
    functions_of,
    labels_of,
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def reward(function: Any, text: str, **fields: Any) -> float:
    return score_of(function)(Completion(text, len(text.split()), fields))


@pytest.mark.parametrize(
    ("function", "text", "answer", "expected"),
    [
        (ExactMatch(), " Paris\n", "Paris", 1),
        (ExactMatch(), "paris", "Paris", 0),
        (ExactMatch(), "Paris.", "Paris", 0),
        (ExactMatch(), "", "", 1),
        (ExactMatch(casefold=True), "STRASSE", "straße", 1),
        (ExactMatch(), "New  York", "New York", 0),
        (ExactMatch(collapse_whitespace=True), "New \n York", "New York", 1),
        (ExactMatch(), "b", ["a", "b"], 1),
        (ExactMatch(), "72", 72, 1),
        (ExactMatch(), "true", True, 1),
        (ExactMatch(tag="answer"), "<think>Rome?</think><answer> Paris </answer>", "Paris", 1),
        (ExactMatch(tag="answer"), "<answer>Rome</answer> or <answer>Paris</answer>", "Paris", 1),
        (ExactMatch(tag="answer"), "Paris", "Paris", 0),
        (ExactMatch(tag="answer"), "Paris</answer>", "Paris", 0),
        (NumberMatch(), "It is 72.", "Natalia sold 48/2 = 24 clips.\n#### 72", 1),
        (NumberMatch(), "It is 71, no, 72", "72.0", 1),
        (NumberMatch(), "72, or 71", "72", 0),
        (NumberMatch(), "nothing", "72", 0),
        (NumberMatch(), "#### $1,234.50", 1234.5, 1),
        (NumberMatch(tag="answer"), "<answer>3</answer> of 4", "3", 1),
    ],
)
def test_an_answer_is_compared(function: RewardFunction, text: str, answer: Any, expected: float) -> None:
    assert reward(function, text, answer=answer) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("48 + 24 = 72 clips\n#### 72", "72"),
        ("#### 5 apples, not 6", "5"),
        ("#### 5\nOr rather #### 7", "7"),
        ("#### none; 3", "3"),
        ("4 #### none", "4"),
        ("1,234,567", "1234567"),
        ("1,234.5 %", "1234.5"),
        ("1,2,3", "3"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("-0.50", "-0.5"),
        ("\u22123", "-3"),
        ("+3", "3"),
        (".5", "0.5"),
        ("5-3", "3"),
        ("10 - 3", "3"),
        ("it is 5.", "5"),
        ("50%", "50"),
        ("\u20ac 7", "7"),
        ("007", "7"),
        ("none", None),
        ("", None),
        ("####", None),
    ],
)
def test_the_number_of_a_text_is_found(text: str, number: str | None) -> None:
    assert number_of(text) == (None if number is None else Decimal(number))


@given(some.decimals(-(10**9), 10**9, places=3), some.text(string.ascii_letters + " .,:;()"))
def test_a_number_is_found_however_it_is_written_and_whatever_words_stand_around(number: Decimal, words: str) -> None:
    for written in (f"{number}", f"{number:,}", f"{number:,}%", f"{number}".replace("-", "-$")):
        assert number_of(f"{words} {written} {words}") == number
        assert number_of(f"9 {words}#### {written} {words} 8") == number


@pytest.mark.parametrize(
    ("function", "text", "answer", "expected"),
    [
        (RegularExpression(pattern=r"\d+"), "a 7", "", 1),
        (RegularExpression(pattern=r"\d+", match="fullmatch"), "a 7", "", 0),
        (RegularExpression(pattern=r"\d+", match="fullmatch"), " 7\n", "", 1),
        (RegularExpression(pattern=r"is (\w+)", group=1), "it is blue", "blue", 1),
        (RegularExpression(pattern=r"is (?P<colour>\w+)", group="colour"), "it is red", "blue", 0),
        (RegularExpression(pattern=r"(a)?b", group=1), "b", "a", 0),
        (RegularExpression(pattern=r"\d+", group=0), "no 7", 7, 1),
    ],
)
def test_a_pattern_is_matched(function: RewardFunction, text: str, answer: Any, expected: float) -> None:
    assert reward(function, text, answer=answer) == expected


def test_a_pattern_that_would_never_end_is_given_up_and_the_next_text_is_matched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = score_of(RegularExpression(pattern=r"(a|aa)+$"))
    began = time.process_time()
    assert score(Completion("a" * 60 + "b", 1, {})) == 0
    assert time.process_time() - began < 30
    assert "(a|aa)+$" in capsys.readouterr().err
    assert score(Completion("aaa", 1, {})) == 1


def test_a_pattern_or_a_group_that_is_none_is_refused() -> None:
    with pytest.raises(re.error):
        score_of(RegularExpression(pattern="("))
    with pytest.raises(re.error, match="group 2"):
        score_of(RegularExpression(pattern="(a)", group=2))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        (' {"name": "Ada"}\n', 1),
        ('Here it is:\n```json\n{"name": "Ada"}\n```\nDone.', 1),
        ('```\n{"name": "Ada"}\n```', 1),
        ('```json\n{"age": 3}\n```\n```json\n{"name": "Ada"}\n```', 0),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "trade": "baker"}', 0),
        ("{}", 0),
        ("[]", 0),
        ('Here it is: {"name": "Ada"}', 0),
        ('{"name": "Ada"', 0),
        ("NaN", 0),
        ("[" * 100_000, 0),
        ('"\ud800"', 0),
        ("", 0),
    ],
)
def test_json_is_held_against_a_schema(text: str, expected: float) -> None:
    assert reward(JsonSchema(schema=PERSON), text) == expected


def test_a_schema_fetches_nothing_and_knows_its_own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket", None)  # whoever opens one fails
    remote = score_of(JsonSchema(schema={"$ref": "http://127.0.0.1:9/schema.json"}))
    assert remote(Completion("1", 1, {})) == 0
    own = JsonSchema(schema={"$defs": {"even": {"multipleOf": 2}}, "items": {"$ref": "#/$defs/even"}})
    assert (reward(own, "[2, 4]"), reward(own, "[2, 3]")) == (1, 0)


def test_a_schema_of_an_older_draft_means_what_it_meant_then() -> None:
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 3, "exclusiveMinimum": True}
    assert (reward(JsonSchema(schema=old), "3"), reward(JsonSchema(schema=old), "4")) == (0, 1)
    with pytest.raises(jsonschema.SchemaError):
        score_of(JsonSchema(schema={"type": "none"}))


def test_a_schema_whose_pattern_would_never_end_is_given_up() -> None:
    assert reward(JsonSchema(schema={"pattern": "^(a|aa)+$"}), f'"{"a" * 60}b"') == 0


@pytest.mark.parametrize(
    ("function", "length", "expected"),
    [
        (LengthReward(target=10), 10, 1),
        (LengthReward(target=10), 5, 0.5),
        (LengthReward(target=10), 15, 0.5),
        (LengthReward(target=10), 20, 0),
        (LengthReward(target=10), 99, 0),
        (LengthReward(min=4), 4, 1),
        (LengthReward(min=4), 1, 0.25),
        (LengthReward(min=4), 0, 0),
        (LengthReward(min=4), 1000, 1),
        (LengthReward(max=10), 0, 1),
        (LengthReward(max=10), 15, 0.5),
        (LengthReward(max=10), 20, 0),
        (LengthReward(min=4, max=10), 7, 1),
    ],
)
def test_a_length_is_rewarded_by_how_near_it_is(function: LengthReward, length: int, expected: float) -> None:
    assert length_reward(function, length) == pytest.approx(expected)


def test_a_length_is_one_of_tokens_or_of_characters() -> None:
    four = Completion("abcdefgh", 4, {})
    assert score_of(LengthReward(target=4))(four) == 1
    assert score_of(LengthReward(target=8, unit="characters"))(four) == 1


@given(some.integers(0, 10_000), some.integers(1, 1000), some.integers(0, 1000))
def test_a_length_s_reward_lies_between_0_and_1_and_never_falls_on_the_way_to_what_is_wanted(
    length: int, least: int, more: int
) -> None:
    for function in (LengthReward(target=least), LengthReward(min=least, max=least + more)):
        rewards = [length_reward(function, one) for one in (length, length + 1)]
        assert all(0 <= one <= 1 for one in rewards)
        assert rewards[0] <= rewards[1] if length < least else True
        assert rewards[0] >= rewards[1] if length >= least + more else True
        assert length_reward(function, least) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>b</answer>", True),
        (" <think>\na\n</think>\n\n<answer>b</answer>\n", True),
        ("<think></think><answer></answer>", True),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a</think>", False),
        ("<think>a</think> so <answer>b</answer>", False),
        ("Well <think>a</think><answer>b</answer>", False),
        ("<think>a</think><answer>b</answer>.", False),
        ("<think>a<answer>b</think></answer>", False),
        ("<think>a</think><think>a</think><answer>b</answer>", False),
        ("<think>a<answer>b</answer></think>", False),
        ("", False),
    ],
)
def test_the_tags_of_a_format_stand_in_order_and_once_each(text: str, expected: bool) -> None:  # noqa: FBT001
    assert has_format(text, ("think", "answer")) is expected
    assert reward(FormatTags(), text) == float(expected)


def test_a_name_stands_for_a_function_with_its_defaults_and_each_has_a_label_of_its_own() -> None:
    functions = functions_of(("exact_match", RegularExpression(pattern="a"), RegularExpression(pattern="b", weight=0)))
    assert functions[0] == ExactMatch()
    assert labels_of(functions) == ("exact_match", "regular_expression", "regular_expression_2")
    assert functions_of(None) == ()
