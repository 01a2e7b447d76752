"""The terminal, and the one place where text goes to it: nothing that others wrote commands it."""

import sys
import textwrap
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from modelforge.visible_text import visible, visible_json, visible_lines

_WIDEST = 10_000


class Screen(Console):
    """A console on which text is text: no markup, no emoji by name, no highlights, and no command of a terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, stderr=stderr)
        if not self.is_terminal:  # a file has no edge at which a line were cut, whatever COLUMNS of a shell says
            self.width = _WIDEST

    def show(self, line: str, *, soft_wrap: bool = False) -> None:
        """Print one line, whatever names are in it; `soft_wrap` leaves it to the terminal to break it."""
        self.print(visible(line), soft_wrap=soft_wrap)

    def hang(self, name: str, text: str) -> None:
        """Print a name and what is said of it, wrapped beside the name and not below it."""
        lines = textwrap.wrap(visible(text), max(self.width - len(name) - 1, 20)) or [""]
        for number, line in enumerate(lines):
            self.print(f"{'' if number else name:<{len(name)}}{line}", soft_wrap=True)

    def render_str(self, text: str, **options: object) -> Text:
        """A text as it is shown: measured, wrapped and cut off in this form."""
        return super().render_str(visible_lines(text), **options)  # type: ignore[arg-type]  # passed on as they come

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is shown, where it was made of a text without being asked for it: rich's own commands are kept."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible_lines(segment.text), segment.style)


def say(line: str) -> None:
    """Write one line on stdout."""
    sys.stdout.write(f"{visible(line)}\n")


def say_json(document: bytes) -> None:
    """Write a JSON document on stdout: the same to a program, and harmless to a terminal."""
    sys.stdout.buffer.write(f"{visible_json(document.decode())}\n".encode())  # JSON is UTF-8, whatever a terminal takes


def complain(problem: object) -> None:
    """Write on stderr what went wrong, which may take more than one line."""
    sys.stderr.write(f"modelforge: {visible_lines(str(problem))}\n")
