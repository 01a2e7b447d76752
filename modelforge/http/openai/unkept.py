"""What OpenAI's clients may say that is not kept here: refused by name, or named in the answer as not used."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from modelforge.errors import BadInput

Harmless = Mapping[str, tuple[object, ...]]
"""Fields that are not kept, and the values with which each says no more than the answer does anyway."""


class Notes(Struct, frozen=True, kw_only=True):
    """`not_used`: fields of the request that changed nothing."""

    not_used: tuple[str, ...]


def refuse(value: object, field: str, remedy: str) -> None:
    """Refuse what is not kept, where it says something.

    Raises:
        BadInput: it does.
    """
    if value is not None and value not in ([], {}, ""):
        raise BadInput("This is not kept here", f"{field}: {remedy}", field=field)


def refuse_unkept(body: Struct, fields: Harmless, reasons: Mapping[str, str] = MappingProxyType({})) -> None:
    """Refuse the first of these fields that says more than it may. `reasons`: what to do in place of some.

    Raises:
        BadInput: one does; it names the field.
    """
    for name, harmless in fields.items():
        value: Any = getattr(body, name)
        if not any(value == one and type(value) is type(one) for one in harmless):
            words = " or ".join(msgspec.json.encode(one).decode() for one in harmless)
            reason = f" {reasons[name]}" if name in reasons else ""
            refuse(value, name, f"Leave it out{f', or send {words}' if words else ''}.{reason}")


def notes_on(body: Struct, fields: tuple[str, ...]) -> Notes | None:
    """What of these fields was sent, and is not used."""
    sent = tuple(name for name in fields if getattr(body, name) not in (None, {}, ""))
    return Notes(not_used=sent) if sent else None
