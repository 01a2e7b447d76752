"""Flags that several commands have: which server, and which data directory."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Group, Parameter

from modelforge.errors import BadInput

LOCAL_URL = "http://127.0.0.1:8000"


class WrongUsage(BadInput):
    """Words on the command line that say nothing: the exit code is 2."""


_SERVER = Group("The server", sort_key=9)


@dataclass(frozen=True, kw_only=True)
class Server:
    """The server that a command talks to, and how it is answered: `json` prints the server's own answer."""

    url: Annotated[
        str,
        Parameter(
            env_var="MODELFORGE_URL", group=_SERVER, help="its address, by default $MODELFORGE_URL; unix:PATH: a socket"
        ),
    ] = LOCAL_URL
    token_file: Annotated[
        Path | None,
        Parameter(group=_SERVER, help="a file with the token to show; without it, $MODELFORGE_API_TOKEN"),
    ] = None
    json: Annotated[bool, Parameter(group=_SERVER, help="print the answer as JSON, for programs")] = False


LOCAL = Server()
"""The server of a command that names none."""

AtServer = Annotated[Server, Parameter(name="*")]
DataDirectory = Annotated[Path | None, Parameter(help="the data directory; a server may run on it meanwhile")]
Queue = Annotated[bool, Parameter(help="wait for the jobs before it, instead of giving up")]
Watch = Annotated[bool, Parameter(help="show it until its end")]


def parameters_of(texts: Iterable[str]) -> dict[str, object]:
    """The values of `--set`, each `NAME=VALUE`: the value as JSON, or else as a text.

    Raises:
        WrongUsage: one has no `=`, or a name is there twice.
    """
    given: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongUsage("--set cannot be used", f"{text!r} is not NAME=VALUE, as in --set max_steps=10.")
        if name in given:
            raise WrongUsage("--set cannot be used", f"{name} is there twice; give it once.")
        try:
            given[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            given[name] = value
    return given
