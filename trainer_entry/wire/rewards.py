"""Rewards that can be checked: the functions by which a policy's completions are rewarded, as a request names them."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

FieldName = Annotated[str, Meta(min_length=1, max_length=200)]
"""A field of the records."""
TagName = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$(?!\n)")]
Length = Annotated[int, Meta(ge=1, le=10_000_000)]

ANSWER = "answer"
"""The field that every record with an answer has, whatever its format calls it."""
OF_THE_CALL = frozenset(
    {"prompt", "prompts", "completion", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
)
"""What trl gives a reward function beside the fields of the records, and never takes from these."""


class Reward(Struct, frozen=True, kw_only=True, tag_field="name", forbid_unknown_fields=True, gc=False):
    """What every reward function has. `weight`: what its reward is multiplied by, before all are added up."""

    weight: Annotated[float, Meta(ge=-1000, le=1000)] = 1.0


class ExactMatch(Reward, frozen=True, tag="exact_match", gc=False):
    """1 for a completion that is the text in a field of its record, or one of the texts there, else 0.

    White space at either end never counts. `casefold`: capitals do not either. `collapse_whitespace`: any run of it is
    one space. `tag`: what is compared stands in this tag, as in `<answer>…</answer>`, the last one of the completion.
    """

    field: FieldName = ANSWER
    casefold: bool = False
    collapse_whitespace: bool = False
    tag: TagName | None = None


class NumberMatch(Reward, frozen=True, tag="number_match", gc=False):
    """1 for a completion whose number is that of a field of its record, else 0.

    The number of a text is the first one after its last `####`, as GSM8K has it, or else its last one. `tag`: the
    completion's stands in this tag.
    """

    field: FieldName = ANSWER
    tag: TagName | None = None


class RegularExpression(Reward, frozen=True, tag="regular_expression", gc=False):
    """1 for a completion that matches a pattern of Python's `re`, else 0; 0 too where that takes more than a second.

    `match`: anywhere, or as a whole, white space at either end left out. `group`: a group of the match, by its number
    or name, that has to be the text in `field` as well.
    """

    pattern: Annotated[str, Meta(min_length=1, max_length=1000)]
    match: Literal["search", "fullmatch"] = "search"
    group: Annotated[int, Meta(ge=0, le=100)] | FieldName | None = None
    field: FieldName = ANSWER


class JsonSchema(Reward, frozen=True, tag="json_schema", gc=False):
    """1 for a completion that is JSON, by itself or in its first fence, and valid by a schema, else 0.

    `schema`: JSON Schema, of 2020-12 unless it says another in `$schema`. Nothing that it refers to is fetched.
    """

    schema: dict[str, Any]


class LengthReward(Reward, frozen=True, tag="length", gc=False):
    """How near a completion's length n is to what is wanted, from 0 to 1.

    With `target` t: max(0, 1 - |n - t| / t). With `min` and `max`: 1 from one to the other, n / min below, and
    max(0, 2 - n / max) above. `unit`: tokens, the one that ends it not counted, or characters.
    """

    unit: Literal["tokens", "characters"] = "tokens"
    target: Length | None = None
    min: Length | None = None
    max: Length | None = None


class FormatTags(Reward, frozen=True, tag="format_tags", gc=False):
    """1 for a completion that is these tags in this order, each once, as `<think>…</think><answer>…</answer>`, else 0.

    White space may stand before, between and after them, and nothing else.
    """

    tags: Annotated[tuple[TagName, ...], Meta(min_length=1, max_length=10)] = ("think", "answer")


class PythonFile(Reward, frozen=True, tag="python_file", gc=False):
    """What a function in a Python file returns, which is called as trl calls a reward function.

    `path`: an absolute one, under a reward root. `sha256`: of the file; left out, that of the file as it is when the
    training is asked for. A trainer runs no other.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4000)]
    function: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$(?!\n)")] = "reward"
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")] | None = None


RewardFunction = ExactMatch | NumberMatch | RegularExpression | JsonSchema | LengthReward | FormatTags | PythonFile
NamedReward = Literal["exact_match", "number_match", "format_tags"]
"""The reward functions that a name alone stands for: those whose every option has a default."""
RewardFunctions = Annotated[tuple[RewardFunction | NamedReward, ...], Meta(min_length=1, max_length=16)]

_DEFAULTS: dict[NamedReward, RewardFunction] = {
    "exact_match": ExactMatch(),
    "number_match": NumberMatch(),
    "format_tags": FormatTags(),
}


def functions_of(asked: tuple[RewardFunction | NamedReward, ...] | None) -> tuple[RewardFunction, ...]:
    """The functions that were asked for, with their options."""
    return tuple(_DEFAULTS[one] if isinstance(one, str) else one for one in asked or ())


def labels_of(functions: tuple[RewardFunction, ...]) -> tuple[str, ...]:
    """What each one's rewards are reported as: its name, and from its second use on a number behind it."""
    names = [str(function.__struct_config__.tag) for function in functions]
    counts = [names[: place + 1].count(name) for place, name in enumerate(names)]
    return tuple(name if count == 1 else f"{name}_{count}" for name, count in zip(names, counts, strict=True))


def field_read_by(function: RewardFunction) -> str | None:
    """The field of the records without which a function cannot reward; None: none. A Python file asks for its own."""
    match function:
        case ExactMatch() | NumberMatch():
            return function.field
        case RegularExpression() if function.group is not None:
            return function.field
        case _:
            return None
