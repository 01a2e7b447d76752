"""The client of a command: whom it shows itself as, and what is printed of an answer."""

import os
import sys
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from modelforge.cli.flags import Server
from modelforge.cli.screen import say_json
from modelforge.connection import Connection, RequestRefused, decoded, path_of

_T = TypeVar("_T", bound=Struct)
__all__ = ["connect", "is_interactive", "path_of", "read_as"]


def connect(server: Server) -> Connection:
    """A client of the server that the flags name.

    Raises:
        RequestRefused: the file of the token cannot be read.
    """
    return Connection(server.url, token=_token(server.token_file))


def _token(file: Path | None) -> str | None:
    """The token to show, if there is one."""
    if file is None:
        return os.environ.get("MODELFORGE_API_TOKEN", "").strip() or None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestRefused("The file of the token cannot be read", f"{file}: {error}") from error


def read_as(answer: bytes, kind: type[_T], server: Server) -> _T | None:
    """An answer to show; None where it was printed as the JSON that it is."""
    if server.json:
        say_json(answer)
        return None
    return decoded(answer, kind, server.url)


def is_interactive() -> bool:
    """Whether somebody can be asked, and see the question."""
    return sys.stdin.isatty() and sys.stderr.isatty()
