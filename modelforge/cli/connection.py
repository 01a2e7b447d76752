"""The client of a command: whom it shows itself as, and what is printed of an answer."""

import os
import sys
from itertools import count
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from modelforge.cli.flags import Server, WrongUsage
from modelforge.cli.screen import complain, say_json
from modelforge.connection import Connection, path_of
from modelforge.server_answers import RequestRefused, decoded

_T = TypeVar("_T", bound=Struct)
__all__ = ["connect", "is_interactive", "path_of", "read_as"]


def connect(server: Server) -> Connection:
    """A client of the server that the flags name.

    Raises:
        RequestRefused: the file of the token cannot be read.
        WrongUsage: the address is none.
    """
    waits = count()
    every = 10  # seconds, at each of which it is asked again

    def say_wait(words: str) -> None:
        if next(waits) % every == 0:
            complain(words)

    return Connection(_address(server.url), token=_token(server.token_file), on_wait=say_wait)


def _address(url: str) -> str:
    """An address as the client takes it: a host and a port alone are meant as HTTP.

    Raises:
        WrongUsage: it is none.
    """
    given = url if "://" in url or url.startswith("unix:") else f"http://{url}"
    if not _is_address(given):
        raise WrongUsage("--url cannot be used", f"{url!r} is no address: write http://HOST:PORT, or unix:PATH.")
    return given


def _is_address(url: str) -> bool:
    if url.startswith("unix:"):
        return url != "unix:"
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is none
        return False


def _token(file: Path | None) -> str | None:
    """The token to show, if there is one."""
    if file is None:
        return os.environ.get("MODELFORGE_API_TOKEN", "").strip() or None
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise RequestRefused("The file of the token cannot be read", f"{file}: {reason}.") from error


def read_as(answer: bytes, kind: type[_T], server: Server) -> _T | None:
    """An answer to show; None where it was printed as the JSON that it is."""
    if server.json:
        say_json(answer)
        return None
    return decoded(answer, kind, server.url)


def is_interactive() -> bool:
    """Whether somebody can be asked, and see the question."""
    return sys.stdin.isatty() and sys.stderr.isatty()
