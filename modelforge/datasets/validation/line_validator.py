"""One pass over lines of records: the errors and warnings of each.

Lines are decoded many at once. Only where that fails, or shows something, are they checked one by one: the
findings are the same, and a file without errors is read at the speed of its decoding.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from modelforge.datasets.validation.duplicates import Numbers, Stretch, sieve_numbers
from modelforge.datasets.validation.error_types import RecordError
from modelforge.datasets.validation.fields import Fields
from modelforge.datasets.validation.lines import LONGEST_LINE, Chunk, split
from modelforge.datasets.validation.proposals import hint_of
from modelforge.datasets.validation.recognition import EXPECTED, format_of
from modelforge.datasets.validation.record_errors import EXAMPLES, decoders, errors_in_line, errors_of
from modelforge.datasets.validation.record_texts import PLAIN_TEXTS, TEXTS, texts_of
from modelforge.datasets.validation.record_warnings import (
    Landmarks,
    has_a_record_per_line,
    suspicious_lines,
    warnings_of,
)
from modelforge.datasets.validation.text_encoding import not_utf8
from modelforge.datasets.validation.values_as_texts import has_values_for_texts
from modelforge.errors import LineError
from trainer_entry import wire
from trainer_entry.wire.formats import (
    Alpaca,
    ArticleHighlights,
    Conversation,
    DocumentSummary,
    InputOutput,
    Preference,
    PromptCompletion,
    Record,
    SharedConversation,
    Text,
)
from trainer_entry.wire.turns import ROLES, has_tools

_LOOKED_THROUGH, _LOOKED_INTO = 1 << 16, 1 << 11
"""So many bytes, of the first part of a file and of each other, are looked through for fields that stand twice.

What writes one twice does so always.
"""
_NO_NUMBER = re.compile(rb"[:\[,]\s*(NaN|-?Infinity)\s*[,}\]]")
LISTED = 100
"""So many errors, and so many warnings, are listed one by one."""


class Findings(Struct, kw_only=True, gc=False):
    """What was found in some lines.

    `lines`: how many there are. `carriage_return`: the first that ends with CR LF. `not_utf8`: how many are no UTF-8.
    `not_texts`: how many have a number or a boolean for a text. `has_tools`: some record has tools, or calls one.
    `used` and `ignored`: the fields that are read, and those that are not. `glimpses`: of the latter, what the first
    values are like that stand in the records themselves.
    """

    format: wire.DatasetFormat | None = None
    lines: int = 0
    records: int = 0
    errors: list[LineError] = []
    error_count: int = 0
    warnings: list[LineError] = []
    warning_count: int = 0
    carriage_return: int | None = None
    not_utf8: int = 0
    not_texts: int = 0
    has_tools: bool = False
    used: list[str] = []
    ignored: list[str] = []
    glimpses: dict[str, Any] = {}
    stretches: list[Stretch] = []


class LineValidator:
    """The pass. Lines are counted from the first that it is given, which is 1."""

    def __init__(self, dataset_format: wire.DatasetFormat | None, numbers: Numbers) -> None:
        self.format = dataset_format
        self.found = Findings()
        self._fields = None if dataset_format is None else Fields(dataset_format)
        self._numbers = numbers
        self._expected_was_said = False

    def take(self, chunk: Chunk) -> None:
        """Check some lines."""
        found, data = self.found, chunk.data
        if data is None:
            found.lines += 1
            self._error(found.lines, None, f"The line is longer than {LONGEST_LINE} bytes.")
            return
        first, before = found.lines + 1, found.records
        marks = Landmarks(data)
        records = self._decoded(marks, first)
        if found.carriage_return is None and b"\r" in data and b"\r\n" in data:
            found.carriage_return = first + data.count(b"\n", 0, data.index(b"\r\n"))
        if records is None:
            lines = split(data)
            for number, line in enumerate(lines, start=first):
                self._take_line(number, line)
            found.lines += len(lines)
        else:
            self._take_records(first, marks, *records)
        found.stretches.append(Stretch(chunk.offset, len(data), first, found.records - before))

    def findings(self) -> Findings:
        """What was found."""
        self.found.format = self.format
        if self._fields is not None:
            self.found.used, self.found.ignored = sorted(self._fields.used), sorted(self._fields.ignored)
            self.found.glimpses = self._fields.glimpses
        return self.found

    def _decoded(self, marks: Landmarks, first: int) -> tuple[list[Record], Fields] | None:
        """The records of some lines, if each is one; None where they have to be checked one by one."""
        data = marks.data
        if self._fields is None:
            return None
        try:
            if not data.isascii():
                data.decode()  # the decoder passes over what it does not need, text or not
            if self._fields.may_stand_twice(data[: _LOOKED_THROUGH if first == 1 else _LOOKED_INTO]):
                return None
            records = self._fields.decode_lines(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return (records, self._fields) if has_a_record_per_line(marks, len(records)) else None

    def _take_records(self, first: int, marks: Landmarks, records: list[Record], fields: Fields) -> None:
        found, kind = self.found, fields.kind
        fields.note_used(records, plain=fields.plain)
        found.lines += len(records)
        found.records += len(records)
        texts = [*map((PLAIN_TEXTS if fields.plain else TEXTS)[kind], records)]
        self._numbers.extend(sieve_numbers(texts))
        if fields.plain and kind in _NEVER_BLANK:
            suspects: set[int] = set()
            if not all(map(str.strip, itertools.chain.from_iterable(texts))):
                suspects = {place for place, some in enumerate(texts) if not all(map(str.strip, some))}
        else:
            fine = _FINE.get(kind, _has_no_error) if fields.plain else _has_no_error
            suspects = {place for place, record in enumerate(records) if not fine(record)}
        if not found.has_tools:  # none of a plain record is fine that calls one
            found.has_tools = any(
                has_tools(records[place]) for place in (suspects if fields.plain else range(len(records)))
            )
        suspects.update(suspicious_lines(marks))
        for place in sorted(suspects):
            self._report(first + place, errors_of(records[place]), records[place])

    def _take_line(self, number: int, line: bytes) -> None:
        """Check one line; a blank one holds no record."""
        if not line.strip():
            return
        try:
            line.decode()
            if self.format is None:
                shown = format_of(line)
                if isinstance(shown, RecordError):
                    self._error(number, shown.field, shown.message + self._expected(hint_of(line, alone=True)))
                    return
                self.format = shown
            if self._fields is None:
                self._fields = Fields(self.format)
            self.found.records += 1
            wrong = [*errors_in_line(line, self.format)]
            self._fields.note(line)
            with contextlib.suppress(msgspec.ValidationError):
                self._fields.note_used([decoders[self.format].decode(line)], plain=False)
            if not wrong:
                record = decoders[self.format].decode(line)
                self._report(number, iter(()), record)
                self.found.has_tools = self.found.has_tools or has_tools(record)
                self._numbers.extend(sieve_numbers([texts_of(record)]))
            elif has_values_for_texts(line, self.format):
                self.found.not_texts += 1
            for error in wrong:
                missing = error.message.startswith("The field") and "is missing" in error.message
                has_hint = missing or (self.format == "text" and error.field not in {None, "text"})
                self._error(number, error.field, error.message + (hint_of(line, alone=False) if has_hint else ""))
        except msgspec.ValidationError as error:
            if "out of range" in str(error):
                self._error(number, None, f"The line has a number that is too large: {error}.")
            else:
                self._error(number, None, f"The line is no JSON object.{self._expected()}")
        except RecursionError:
            self._error(number, None, "The line is nested too deeply.")
        except UnicodeDecodeError as error:
            self.found.not_utf8 += 1
            # To guess takes time, and is of use in a message that is listed only.
            self._error(number, None, not_utf8(line, error.start) if self.found.error_count < LISTED else "")
        except msgspec.DecodeError as error:
            self._error(number, None, _what_is_no_json(line, error))

    def _expected(self, proposal: str = "") -> str:
        """What a record can be: said once of a file that shows no format, and of each line of one that does."""
        if self.format is not None:
            return f" A record of this format is {EXAMPLES[self.format]}."
        first, self._expected_was_said = not self._expected_was_said, True
        return f" {EXPECTED}{proposal}" if first else ""

    def _report(self, number: int, wrong: Iterator[RecordError], record: Record) -> None:
        before = self.found.error_count
        for error in wrong:
            self._error(number, error.field, error.message)
        if self.found.error_count == before:
            for warning in warnings_of(record):
                self._warning(number, warning.field, warning.message)

    def _error(self, number: int, field: str | None, message: str) -> None:
        """Count an error, and list it if it is among the first."""
        self.found.error_count += 1
        if len(self.found.errors) < LISTED:
            self.found.errors.append(LineError(number, field, message))

    def _warning(self, number: int, field: str | None, message: str) -> None:
        self.found.warning_count += 1
        if len(self.found.warnings) < LISTED:
            self.found.warnings.append(LineError(number, field, message))


def _what_is_no_json(line: bytes, error: Exception) -> str:
    if b"\\ud" in line.lower() and ("surrogate" in str(error) or "truncated" in str(error)):
        return f"The line has half of a character (a lone surrogate, \\ud8…): {error}. Write the whole character."
    named = _NO_NUMBER.search(line)
    if named is not None:
        return f"The line is not valid JSON: {named[1].decode()} is no number there. Write null, or take the field out."
    return f"The line is not valid JSON: {error}."


def _has_no_error(record: Record) -> bool:
    return next(errors_of(record), None) is None and next(warnings_of(record), None) is None


def _is_fine_conversation(record: Conversation) -> bool:
    """Whether users and the assistant take turns, who says something last, after a system turn or none."""
    expected = "system user"
    for turn in record.messages:
        content = turn.content
        if turn.role not in expected or not isinstance(content, str) or not content or content.isspace():
            return False
        expected = "assistant" if turn.role == "user" else "user"
    return expected == "user" and len(record.messages) > 1


def _is_fine_shared(record: SharedConversation) -> bool:
    """The same of turns as ShareGPT spells them, in one spelling each."""
    expected, count = "system user", 0
    for turn in record.conversations:
        is_named = turn.sender is None
        speaker, said = (turn.role, turn.content) if is_named else (turn.sender, turn.value)
        other = turn.value if is_named else turn.role or turn.content
        role = ROLES.get(speaker or "")
        if other or role is None or role not in expected or not isinstance(said, str) or not said or said.isspace():
            return False
        expected = "assistant" if role == "user" else "user"
        count += 1
    return expected == "user" and count > 1


def _is_fine_preference(record: Preference) -> bool:
    texts = record.prompt, record.chosen, record.rejected
    return record.chosen != record.rejected and all(
        isinstance(text, str) and text.strip() and not text.lstrip().startswith(("Human:", "Assistant:"))
        for text in texts
    )


_NEVER_BLANK = frozenset({InputOutput, Text, DocumentSummary, ArticleHighlights})
"""Records whose texts only have to say something."""

_FINE: dict[type[Record], Callable[[Any], bool]] = {
    Alpaca: lambda record: all(
        text and not text.isspace() for text in (record.instruction, record.output, record.input or "-")
    ),
    PromptCompletion: lambda record: all(
        isinstance(text, str) and text and not text.isspace() for text in (record.prompt, record.completion)
    ),
    Conversation: _is_fine_conversation,
    SharedConversation: _is_fine_shared,
    Preference: _is_fine_preference,
}
"""Whether a plain record has certainly no error, and no warning but perhaps of a control character."""
