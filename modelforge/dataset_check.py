"""Checks the records of a dataset in one pass: format, every line, and the hash of the bytes that were read.

Runs as a process of its own (`python -m modelforge.dataset_check FILE`), so that gigabytes neither block the
server nor stay in its memory; `check_dataset` is how the server runs it.
"""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from modelforge.child_process import run_module
from modelforge.errors import BadInput, DatasetReport, InvalidDataset, LineError
from modelforge.fields import field_error, narrowed
from trainer_entry import wire

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 16 << 20
_LISTED = 100
_UNREADABLE = 3  # the exit code; an interpreter that fails has others
_BOM = b"\xef\xbb\xbf"


class InputOutput(Struct, gc=False):
    """A prompt and the answer to learn."""

    input: str
    output: str


class Message(Struct, gc=False):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Conversation(Struct, gc=False):
    """A conversation whose assistant turns are to be learned."""

    messages: list[Message]


class DatasetCheck(Struct, frozen=True, kw_only=True, gc=False):
    """What a file holds. `format` is None where no record shows one."""

    format: wire.DatasetFormat | None
    num_examples: int
    size_bytes: int
    sha256: str
    report: DatasetReport


class ValidDataset(Struct, frozen=True, kw_only=True, gc=False):
    """What a file holds in which no fault was found."""

    format: wire.DatasetFormat
    num_examples: int
    size_bytes: int
    sha256: str
    report: DatasetReport


# Formats that will come, by the fields that show them: known by name, so that the refusal can name them.
_LATER: tuple[tuple[str, frozenset[str]], ...] = (
    ("preferences (prompt, chosen, rejected)", frozenset({"chosen", "rejected"})),
    ("prompt and completion", frozenset({"prompt", "completion"})),
    ("Alpaca (instruction, output)", frozenset({"instruction", "output"})),
    ("ShareGPT (conversations)", frozenset({"conversations"})),
    ("plain text", frozenset({"text"})),
    ("questions on a context", frozenset({"context", "question"})),
    ("document and summary", frozenset({"document", "summary"})),
    ("article and highlights", frozenset({"article", "highlights"})),
)
_EXPECTED = 'Each line is an object with "input" and "output", or with "messages".'

_any_record = msgspec.json.Decoder(dict[str, msgspec.Raw])
_input_output = msgspec.json.Decoder(InputOutput)
_conversation = msgspec.json.Decoder(Conversation)


class _Check:
    """The pass over one file."""

    def __init__(self) -> None:
        self.format: wire.DatasetFormat | None = None
        self.records = 0
        self.errors: list[LineError] = []
        self.error_count = 0

    def take(self, number: int, line: bytes) -> None:
        """Check one line; a blank one holds no record."""
        if not line.strip():
            return
        try:
            line.decode()  # the decoder passes over what it does not need, text or not
            self._take(number, line)
        except msgspec.ValidationError:
            self.fault(number, None, f"The line is no JSON object. {_EXPECTED}")
        except RecursionError:
            self.fault(number, None, "The line is nested too deeply.")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self.fault(number, None, _what_is_no_json(line, error))

    def _take(self, number: int, line: bytes) -> None:
        if self.format is None:
            self.format = self._detect(number, line)
            if self.format is None:
                return
        try:
            self._check(number, line)
        except msgspec.ValidationError as error:
            self._explain(number, line, error)
        else:
            self.records += 1

    def fault(self, number: int, field: str | None, message: str) -> None:
        """Count a fault, and list it if it is among the first."""
        self.error_count += 1
        if len(self.errors) < _LISTED:
            self.errors.append(LineError(number, field, message))

    def _detect(self, number: int, line: bytes) -> wire.DatasetFormat | None:
        fields = _any_record.decode(line).keys()
        if "messages" in fields:
            return "messages"
        if "input" in fields or ("output" in fields and "instruction" not in fields):
            return "input_output"
        for name, shown_by in _LATER:
            if shown_by <= fields:
                self.fault(number, None, f"Records of the format {name} cannot be trained on yet. {_EXPECTED}")
                return None
        found = ", ".join(repr(field) for field in list(fields)[:10]) or "none"
        self.fault(number, None, f"The fields show no known format: found {found}. {_EXPECTED}")
        return None

    def _check(self, number: int, line: bytes) -> None:
        match self.format:
            case "input_output":
                record = _input_output.decode(line)
                if not record.output.strip():
                    self.fault(number, "output", "It is blank: there is nothing to learn. Write the answer.")
            case "messages":
                self._check_turns(number, _conversation.decode(line).messages)
            case _:
                raise AssertionError("the format is detected first")

    def _check_turns(self, number: int, turns: list[Message]) -> None:
        if not turns:
            self.fault(number, "messages", "It is empty. A conversation has a user's turn and an assistant's.")
            return
        expected: tuple[str, ...] = ("system", "user")
        for index, turn in enumerate(turns):
            if turn.role not in expected:
                wanted = " or ".join(expected)
                self.fault(number, f"messages[{index}].role", f"{turn.role!r} cannot stand here; expected {wanted}.")
                return
            if turn.role == "assistant" and not turn.content.strip():
                self.fault(number, f"messages[{index}].content", "It is blank: there is nothing to learn.")
            expected = ("assistant",) if turn.role == "user" else ("user",)
        if turns[-1].role != "assistant":
            self.fault(number, "messages", "No assistant's turn at the end: there is nothing to learn.")

    def _explain(self, number: int, line: bytes, error: msgspec.ValidationError) -> None:
        fields = _any_record.decode(line).keys()
        fields_of = {"input_output": {"input", "output"}, "messages": {"messages"}}
        wanted = fields_of.pop(self.format or "")
        if not wanted & fields and any(other <= fields for other in fields_of.values()):
            self.fault(number, None, f"This record is of another format than the first, which is {self.format}.")
            return
        fault = field_error(error, InputOutput if self.format == "input_output" else Conversation)
        self.fault(number, fault.field, " ".join(filter(None, (f"{fault.message}.", fault.remedy))))


def _what_is_no_json(line: bytes, error: Exception) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as found:
        return f"The line is not UTF-8 (byte {found.start + 1} of it); save the file as UTF-8."
    return f"The line is not valid JSON: {error}."


def check(path: Path) -> DatasetCheck:
    """Read a file once.

    Raises:
        OSError: it cannot be read.
    """
    found = _Check()
    sha256 = hashlib.sha256()
    size = number = 0
    for number, line in enumerate(_lines(path, sha256), start=1):
        if line is None:
            found.fault(number, None, f"The line is longer than {_LONGEST_LINE} bytes.")
        elif number == 1 and line.startswith(_BOM):
            found.fault(1, None, "The file begins with a byte order mark; save it as UTF-8 without one.")
        else:
            found.take(number, line)
    size = path.stat().st_size
    if not found.records and not found.error_count:
        found.fault(max(number, 1), None, f"The file has no record. {_EXPECTED}")
    return DatasetCheck(
        format=found.format,
        num_examples=found.records,
        size_bytes=size,
        sha256=sha256.hexdigest(),
        report=DatasetReport(valid=not found.error_count, errors=tuple(found.errors), error_count=found.error_count),
    )


def _lines(path: Path, sha256: "hashlib._Hash") -> Iterator[bytes | None]:
    """The lines of a file without their ends; None for one that is too long to be kept."""
    rest = bytearray()
    too_long = False
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
            *ends, last = chunk.split(b"\n")
            for end in ends:
                yield None if too_long or len(rest) + len(end) > _LONGEST_LINE else bytes(rest) + end
                rest.clear()
                too_long = False
            too_long = too_long or len(rest) + len(last) > _LONGEST_LINE
            rest += b"" if too_long else last
    if rest or too_long:
        yield None if too_long else bytes(rest)


async def check_dataset(path: Path, field: str) -> ValidDataset:
    """Check a file in a process of its own. `field`: where a client named it.

    Raises:
        InvalidDataset: its records cannot be trained on; the report has each by line.
        BadInput: it cannot be read.
    """
    ended = await run_module("modelforge.dataset_check", str(path))
    if ended.code == _UNREADABLE:
        raise BadInput("The dataset cannot be read", ended.words, field=field)
    if ended.code != 0:
        raise RuntimeError(f"The dataset check ended with {ended.code}: {ended.words}")
    found = msgspec.json.decode(ended.output, type=DatasetCheck)
    if not found.report.valid or found.format is None:
        raise invalid(found.report, field)
    return narrowed(found, ValidDataset)


def invalid(report: DatasetReport, field: str) -> BadInput:
    """The refusal of a file, with its first fault in words."""
    first = report.errors[0]
    where = f"line {first.line}" + (f", field {first.field!r}" if first.field else "")
    more = f" ({report.error_count} faults in all)" if report.error_count > 1 else ""
    return InvalidDataset("The dataset is not valid", f"{where}: {first.message}{more}", report, field=field)


def main() -> int:
    """Check the file that is named, and print the result as JSON."""
    path = Path(sys.argv[1])
    try:
        found = check(path)
    except OSError as error:
        sys.stderr.write(f"{path.name}: {error.strerror}\n")
        return _UNREADABLE
    sys.stdout.buffer.write(msgspec.json.encode(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
