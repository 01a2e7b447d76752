"""`--help` as this program prints it: names in one column, what they are for in another, wrapped there."""

from cyclopts.help import HelpEntry, HelpPanel
from rich.console import Console, ConsoleOptions
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

_INDENT = 2
_GAP = 2
_NAMES_WIDTH = 34
_SAID_BY_THE_NAME = frozenset({"False", "None"})


class HelpPage:
    """How cyclopts is to lay out the help of a command."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:  # noqa: ARG002 - the same
        """Print one group of commands or flags."""
        shown = [entry for entry in panel.entries if entry.display_labels]
        if not shown:
            return
        names = [_name(entry) for entry in shown]
        table = Table(
            Column("", overflow="fold", width=min(max(map(len, names)), _NAMES_WIDTH)),
            Column("", overflow="fold"),
            box=None,
            padding=(0, _GAP, 0, 0),
            show_header=False,
            pad_edge=False,
        )
        for name, entry in zip(names, shown, strict=True):
            table.add_row(name, _said(entry))
        console.print(Text(f"{panel.title}:"))
        console.print(Padding(table, (0, 0, 0, _INDENT)))
        console.print()

    def render_usage(self, console: Console, options: ConsoleOptions, usage: object) -> None:  # noqa: ARG002 - as cyclopts calls it
        """Print the first line."""
        if usage:
            console.print(Text(_plain(usage)), end="\n\n")

    def render_description(self, console: Console, options: ConsoleOptions, description: object) -> None:  # noqa: ARG002 - the same
        """Print what the command does."""
        if description and (text := _plain(description, console)):
            console.print(Text(text), end="\n\n")


def _name(entry: HelpEntry) -> str:
    return ", ".join(entry.display_labels_with_metavar)


def _said(entry: HelpEntry) -> Text:
    """What it is for, what it takes, and what it is by default."""
    parts = [_plain(entry.description)]
    if entry.choices:
        parts.append(f"[{', '.join(entry.choices)}]")
    if entry.required:
        parts.append("(required)")
    elif entry.default is not None and str(entry.default) not in _SAID_BY_THE_NAME:
        parts.append(f"({entry.default})")
    return Text(" ".join(filter(None, parts)))


def _plain(part: object, console: Console | None = None) -> str:
    """The text of what cyclopts made of a text."""
    if part is None:
        return ""
    plain = getattr(part, "plain", None)
    if isinstance(plain, str):
        return plain.strip()
    drawn = Console(width=10_000 if console is None else console.width, no_color=True, force_terminal=False)
    with drawn.capture() as captured:
        drawn.print(part, end="")
    return "\n".join(line.rstrip() for line in captured.get().strip().splitlines())
