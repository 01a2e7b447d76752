"""How long the records of a dataset are, estimated from the file's beginning."""

from pathlib import Path

from msgspec import Struct

_SAMPLE_BYTES = 16 << 20
_BYTES_A_TOKEN = 4  # of English, with JSON's own signs and the chat template's tokens about even
_FEWEST = 16
_ESCAPED = 4  # \uXXXX stands for a letter of 2 bytes, which most of such alphabets have


class Longest(Struct, frozen=True, gc=False):
    """The longest record's tokens, and those `together`, estimated. `whole`: all records were read."""

    tokens: int
    together: int
    whole: bool


def longest_record(path: Path) -> Longest | None:
    """The longest of the records in the file's first 16 MB, by its bytes; None where the file cannot be read."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_SAMPLE_BYTES)
            whole = not file.read(1)
    except OSError:
        return None
    sizes = [len(line) - _ESCAPED * line.count(b"\\u") for line in beginning.split(b"\n")]
    return Longest(
        tokens=max(_FEWEST, max(sizes) // _BYTES_A_TOKEN),
        together=max(_FEWEST, sum(sizes) // _BYTES_A_TOKEN),
        whole=whole,
    )
