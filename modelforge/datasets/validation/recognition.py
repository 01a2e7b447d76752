"""The format of a record, recognised by the names of its fields."""

from collections.abc import Iterable
from difflib import get_close_matches

import msgspec

from modelforge.datasets.validation.error_types import RecordError
from modelforge.datasets.validation.field_names import plain_name
from modelforge.datasets.validation.usual_names import ANSWERS, USUALLY_READ
from trainer_entry import wire
from trainer_entry.wire.formats import FORMATS

EXPECTED = (
    'A record has "input" and "output"; or "prompt" and "completion"; or "instruction" and "output"; or "messages"; '
    'or "conversations"; or "text"; or "document" and "summary"; or "article" and "highlights"; or "context", '
    '"question" and "answer" (or "answers"); or "prompt", "chosen" and "rejected"; or "prompt" alone.'
)

_ANSWERS = (*ANSWERS, "output", "assistant", "chosen", "rejected")
_TELLING = (USUALLY_READ | {*_ANSWERS}) - {"prompt", "class", "intent", "margin", "persona", "sentiment"}
_CLOSE = 0.8

fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw])


def required_fields(dataset_format: wire.DatasetFormat) -> tuple[str, ...]:
    """The fields that every record of a format has."""
    kind = FORMATS[dataset_format]
    optional = len(kind.__struct_defaults__)
    return kind.__struct_encode_fields__[: len(kind.__struct_fields__) - optional]


def asks_only(fields: frozenset[str]) -> bool:
    """Whether these are fields of a prompt without an answer: none is near to the name of one, or of what matters."""
    if "prompt" not in fields:
        return False
    others = {plain_name(name) for name in fields} - {"prompt", "system"}
    return others.isdisjoint(_TELLING) and not any(get_close_matches(name, _ANSWERS, 1, _CLOSE) for name in others)


def format_of(line: bytes) -> wire.DatasetFormat | RecordError:
    """The format that a record's fields show, though one may be missing; an error where they show none.

    Raises:
        msgspec.ValidationError: it is no object.
        msgspec.DecodeError: it is no JSON.
    """
    fields = fields_of.decode(line)
    told = [name for name, value in fields.items() if bytes(value) != b"null"]
    shown = format_shown_by(told)
    if shown == "prompts":  # an answer that is null in one record is no answer that nobody gives
        shown = format_shown_by(fields)
    if shown is None or not {*required_fields(shown)} <= {*told}:
        shown = format_shown_by(fields) or shown
    if shown is not None:
        return shown
    found = ", ".join(repr(name[:40]) for name in list(fields)[:10]) or "none"
    return RecordError(None, f"The fields show no known format: found {found}.")


def format_shown_by(fields: Iterable[str]) -> wire.DatasetFormat | None:
    """The format that these fields belong to, if one is recognised."""
    has = frozenset(fields)
    choices: tuple[tuple[wire.DatasetFormat, bool], ...] = (
        ("preferences", has >= {"chosen", "rejected"}),  # some have the chosen conversation as messages beside them
        ("messages", "messages" in has),
        ("preferences", bool(has & {"chosen", "rejected"})),
        ("conversations", "conversations" in has),
        ("alpaca", "instruction" in has),
        ("input_output", bool(has & {"input", "output"})),
        ("prompts", asks_only(has)),
        ("prompt_completion", bool(has & {"prompt", "completion"})),
        ("squad", "answers" in has and bool(has & {"context", "question"})),
        ("question_answer", len(has & {"context", "question", "answer"}) > 1),
        ("article_highlights", bool(has & {"article", "highlights"})),
        ("document_summary", bool(has & {"document", "summary"})),
        ("text", "text" in has),
    )
    return next((name for name, holds in choices if holds), None)
