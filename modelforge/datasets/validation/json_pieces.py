"""JSON of any size, taken apart at its outer brackets and commas; a part at a time."""

import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from modelforge.datasets.validation.error_types import UnreadableFile
from modelforge.datasets.validation.lines import LONGEST_LINE

_PART = 1 << 20
_STRUCTURE = re.compile(rb'\\.|["\[\]{},\n]', re.DOTALL)
_CLOSES = {b"]": b"[", b"}": b"{"}


class Piece(NamedTuple):
    """A text, and the bracket or comma that ends it; none at the end of the file.

    `began`: the line on which the piece before it ended. `ended`: the line of its mark.
    """

    text: bytes
    mark: bytes
    began: int
    ended: int

    @property
    def line(self) -> int:
        """The line on which the text begins, or its mark where there is no text."""
        if not self.text.strip():
            return self.ended
        return self.began + self.text[: len(self.text) - len(self.text.lstrip())].count(b"\n")


def pieces(file: BinaryIO, levels: int) -> Iterator[Piece]:
    """The pieces between the brackets of the outer `levels`, and between the commas within them.

    With no levels, whole values that follow each other, and what stands between them: a bracket that ends one belongs
    to it.

    Raises:
        UnreadableFile: a bracket closes nothing, or a piece is too long.
    """
    line = began = 1
    open_ones: list[bytes] = []
    depth = 0
    quoted = ended = False
    rest = text = b""
    while not ended:
        data = file.read(_PART)
        ended = not data
        part, rest = rest + data, b""
        if not ended and (len(part) - len(part.rstrip(b"\\"))) % 2 == 1:  # an escape is not taken apart
            part, rest = part[:-1], b"\\"
        start = 0
        for found in _STRUCTURE.finditer(part):
            mark = found[0]
            line += mark.endswith(b"\n")
            if mark == b'"':
                quoted = not quoted
            if quoted or mark[:1] in b'"\\\n':
                continue
            opens, closes = mark in b"[{", mark in b"]}"
            depth += opens
            splits = depth <= levels
            depth -= closes
            if splits and opens:
                open_ones.append(mark)
            elif closes and (depth < 0 or (splits and open_ones.pop() != _CLOSES[mark])):
                raise UnreadableFile(line, f"A {mark.decode()} closes what nothing has opened.")
            whole = not levels and closes and depth == 0
            if splits or whole:
                text += part[start : found.end() if whole else found.start()]
                yield Piece(text, mark, began, line)
                text, start, began = b"", found.end(), line
        text += part[start:]
        if len(text) > LONGEST_LINE:
            raise UnreadableFile(began, f"A record is longer than {LONGEST_LINE} bytes.")
    yield Piece(text, b"", began, line)
