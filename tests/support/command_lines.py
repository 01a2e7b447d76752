"""Command lines of `modelforge` as pages show them, and whether the command line takes them."""

import re
import shlex
from collections.abc import Iterator

from cyclopts import MissingArgumentError

from modelforge.cli.commands import command_line

_ENDS = re.compile(r"^(?:\||;|&&|\|\||>|<|&|2>.*)$")


def shown_in(text: str) -> Iterator[list[str]]:
    """The arguments of each command of ours in lines of a shell; what another program gets is none of ours."""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = _words(line) if "modelforge " in line else []
        for number, word in enumerate(words):
            if word.rpartition("/")[2] == "modelforge":
                rest = words[number + 1 :]
                end = next((place for place, one in enumerate(rest) if _ENDS.match(one)), len(rest))
                yield rest[:end]
                break


def _words(line: str) -> list[str]:
    return shlex.split(re.sub(r"(?<=\S);(?=\s)", " ;", line), comments=True)


def check_taken(words: list[str], *, whole: bool = True) -> None:
    """Parse a command line and run nothing; `whole`: all that is required has to be there.

    Raises:
        CycloptsError: it is not taken.
    """
    try:
        command_line().parse_args(words, exit_on_error=False, print_error=False)
    except MissingArgumentError:
        if whole:
            raise
