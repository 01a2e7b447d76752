"""How a completion is rewarded by what is known of it: comparisons, patterns, schemas, lengths and forms.

Each function gives 1 or 0, but for `length`, which gives what lies between as well. They are pure; those that run a
stranger's pattern or schema are bounded in the time that they take of the processor.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, assert_never

import msgspec
from msgspec import Struct

from trainer_entry.runtime.bounds import OutOfBounds, bounded, time_for
from trainer_entry.runtime.stdout import note
from trainer_entry.wire import rewards as wire
from trainer_entry.wire.reward_texts import number_of, texts_in

_SECONDS = 1.0
"""What a pattern or a schema may take of the processor for one completion."""
_FENCE = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


class Completion(Struct, frozen=True, gc=False):
    """What is rewarded. `length`: in tokens, without the one that ends it. `fields`: those of its record."""

    text: str
    length: int
    fields: Mapping[str, Any]


Score = Callable[[Completion], float]
CheckedFunction = (
    wire.ExactMatch
    | wire.NumberMatch
    | wire.RegularExpression
    | wire.JsonSchema
    | wire.LengthReward
    | wire.FormatTags
)  # fmt: skip


def score_of(function: CheckedFunction) -> Score:
    """What rewards a completion as a function says.

    Raises:
        re.error: a pattern is none.
        jsonschema.SchemaError: a schema is none.
    """
    match function:
        case wire.ExactMatch():
            return lambda completion: _exact_match(function, completion)
        case wire.NumberMatch():
            return lambda completion: _number_match(function, completion)
        case wire.RegularExpression():
            return _matcher(function)
        case wire.JsonSchema():
            return _validator(function)
        case wire.LengthReward():
            return lambda completion: length_reward(
                function, completion.length if function.unit == "tokens" else len(completion.text)
            )
        case wire.FormatTags():
            return lambda completion: float(has_format(completion.text, function.tags))
        case _:
            assert_never(function)


def _exact_match(function: wire.ExactMatch, completion: Completion) -> float:
    said = _within(function.tag, completion.text)
    if said is None:
        return 0.0
    plain = _plain(function, said)
    return float(any(_plain(function, text) == plain for text in texts_in(completion.fields.get(function.field))))


def _plain(function: wire.ExactMatch, text: str) -> str:
    text = " ".join(text.split()) if function.collapse_whitespace else text.strip()
    return text.casefold() if function.casefold else text


def _within(tag: str | None, text: str) -> str | None:
    """What stands in the last of these tags; all of it where none is asked for, None where there is none."""
    if tag is None:
        return text
    before, closing, _ = text.rpartition(f"</{tag}>")
    _, opening, inside = before.rpartition(f"<{tag}>")
    return inside if closing and opening else None


def _number_match(function: wire.NumberMatch, completion: Completion) -> float:
    said = _within(function.tag, completion.text)
    number = None if said is None else number_of(said)
    if number is None:
        return 0.0
    return float(any(number_of(text) == number for text in texts_in(completion.fields.get(function.field))))


def _matcher(function: wire.RegularExpression) -> Score:
    pattern = re.compile(function.pattern)
    find = pattern.search if function.match == "search" else pattern.fullmatch
    if function.group is not None and function.group not in {*range(pattern.groups + 1), *pattern.groupindex}:
        raise re.error(f"there is no group {function.group!r}", function.pattern, 0)

    def score(completion: Completion) -> float:
        text = completion.text.strip() if function.match == "fullmatch" else completion.text
        try:
            with time_for(_SECONDS), bounded():
                found = find(text)
        except OutOfBounds as error:
            note(f"The pattern {function.pattern!r} is given up for a completion, which is rewarded with 0: {error}.")
            return 0.0
        if found is None or function.group is None:
            return float(found is not None)
        said = found[function.group]
        known = {one.strip() for one in texts_in(completion.fields.get(function.field))}
        return float(said is not None and said.strip() in known)

    return score


def _validator(function: wire.JsonSchema) -> Score:
    from jsonschema.validators import Draft202012Validator, validator_for
    from jsonschema_specifications import REGISTRY

    kind = validator_for(function.schema, default=Draft202012Validator)
    kind.check_schema(function.schema)
    # The registry has the drafts of JSON Schema and fetches nothing, as the one that is taken by itself would.
    validator = kind(function.schema, registry=REGISTRY)

    def score(completion: Completion) -> float:
        try:
            value = msgspec.json.decode(json_in(completion.text))
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            return 0.0
        try:
            with time_for(_SECONDS), bounded():
                return float(validator.is_valid(value))
        except Exception as error:  # noqa: BLE001 - the library raises what its parts do: of addresses, of numbers
            why = f"{type(error).__name__}: {error}".partition("\n")[0]
            note(f"A completion is rewarded with 0, as the schema cannot be held against it: {why}.")
            return 0.0

    return score


def json_in(text: str) -> str:
    """What of a text is to be JSON: its first fence, or all of it where it has none."""
    fence = _FENCE.search(text)
    return text.strip() if fence is None else fence[1]


def length_reward(function: wire.LengthReward, length: int) -> float:
    """How near a length is to the one that is wanted, from 0 to 1."""
    if function.target is not None:
        return max(0.0, 1 - abs(length - function.target) / function.target)
    if function.min is not None and length < function.min:
        return length / function.min
    if function.max is not None and length > function.max:
        return max(0.0, 2 - length / function.max)
    return 1.0


def has_format(text: str, tags: tuple[str, ...]) -> bool:
    """Whether a text is these tags in this order, each once, and nothing else but white space around them."""
    left = text
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1:
            return False
        before, _, rest = left.partition(opening)
        _, closed, left = rest.partition(closing)
        if before.strip() or not closed:
            return False
    return not left.strip()
