"""The texts and the numbers in the fields of a record, by which completions are rewarded: one rule for both sides."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from trainer_entry.wire.obstacles import Obstacle
from trainer_entry.wire.rewards import NumberMatch, RewardFunction, field_read_by

_GSM8K = "####"
_NUMBER = re.compile(
    r"(?P<sign>(?<![0-9.])[-+\u2212])?(?:[$\u20ac\u00a3]\s?(?P<inner>[-\u2212])?)?"
    r"(?P<digits>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
)


def texts_in(value: Any) -> Iterator[str]:
    """The texts that a field has: itself, a number or truth as it is written in JSON, or those in a list."""
    match value:
        case str():
            yield value
        case bool() | int() | float():
            yield msgspec.json.encode(value).decode()
        case list():
            for one in value:
                yield from texts_in(one)
        case _:
            pass


def number_of(text: str) -> Decimal | None:
    """The number that a text comes to: the first after its last `####`, or else its last one.

    Commas between thousands, a sign of money before it and a sign of per cent behind it are no part of it.
    """
    _, mark, conclusion = text.rpartition(_GSM8K)
    found = _NUMBER.search(conclusion) if mark else None
    if found is None:
        for found in _NUMBER.finditer(text):  # noqa: B007 - the last one is what counts
            pass
    if found is None:
        return None
    negative = (found["sign"] in {"-", "\u2212"}) != (found["inner"] is not None)
    try:
        number = Decimal(found["digits"].replace(",", ""))
    except InvalidOperation:  # more digits than a number may have
        return None
    return -number if negative else number


def in_fields(functions: tuple[RewardFunction, ...], fields: Mapping[str, Any]) -> Obstacle | None:
    """What speaks against rewarding by the fields of a record: one is missing, or no text or number."""
    for place, function in enumerate(functions):
        name = field_read_by(function)
        if name is None:
            continue
        at = f"reward_functions[{place}].field"
        texts = list(texts_in(fields.get(name)))
        if not texts:
            known = ", ".join(map(repr, fields)) or "none"
            return Obstacle(
                at,
                f"there is no text or number in a field {name!r} to compare with",
                f"It has {known}: name another field, or add it to every record.",
            )
        if isinstance(function, NumberMatch) and not any(number_of(text) is not None for text in texts):
            return Obstacle(
                at, f"there is no number in the field {name!r} to compare with", 'Add one, or use "exact_match".'
            )
    return None
