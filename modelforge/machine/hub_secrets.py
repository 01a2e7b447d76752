"""What the child needs that asks the hub: its token, and the proxies' passwords.

No other child gets them, and none by its environment, which every process of the same user can read.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from huggingface_hub import constants
from msgspec import Struct

from modelforge.hub import hub_token
from trainer_entry import wire
from trainer_entry.wire.redaction import Redaction, credentials_in
from trainer_entry.wire.secret_files import PROXIES_VARIABLE, SECRET_FILES, TOKEN_FILE_VARIABLE

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_SECRET_NAMES = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "_KEY", "CREDENTIAL")


class Handed(Struct, frozen=True):
    """How a child finds its secrets: variables that name open files."""

    variables: dict[str, str]
    descriptors: tuple[int, ...] = ()


@contextmanager
def handed_secrets(*, asks_hub: bool) -> Iterator[Handed]:
    """The secrets for one child, in files that have no name, for as long as it takes to start it."""
    with ExitStack() as stack:
        variables: dict[str, str] = {}
        descriptors: list[int] = []
        for variable, content in _secrets() if asks_hub else ():
            descriptor = os.memfd_create(variable)
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
            variables[variable] = f"/dev/fd/{descriptor}"
            descriptors.append(descriptor)
        yield Handed(variables, tuple(descriptors))


def write_secrets(folder: Path) -> dict[str, str]:
    """Write the secrets of an attempt into its folder, for its owner only; the variables that name them.

    An attempt outlives the server, and its processes are started by others that pass no open file on.
    """
    variables = {}
    files = dict(zip((TOKEN_FILE_VARIABLE, PROXIES_VARIABLE), SECRET_FILES, strict=True))
    for variable, content in _secrets():
        path = folder / files[variable]
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        variables[variable] = str(path)
    return variables


def remove_secrets(folder: Path) -> None:
    """Take the secrets of an attempt away."""
    for name in SECRET_FILES:
        (folder / name).unlink(missing_ok=True)


def _secrets() -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    token = None if constants.HF_HUB_OFFLINE else hub_token()
    if token is not None:
        found.append((TOKEN_FILE_VARIABLE, token.encode()))
    proxies = {name: value for name in _PROXIES if credentials_in(value := os.environ.get(name, ""))}
    if proxies:
        found.append((PROXIES_VARIABLE, msgspec.json.encode(proxies)))
    return found


def asks_hub(path: str) -> bool:
    """Whether a model has to be asked for, as far as its name says: it is no folder."""
    return not path.startswith("/")


def job_asks_hub(job: wire.JobSpec) -> bool:
    """Whether an attempt at a job has to ask the hub."""
    models = (job.model_path, job.reward_model_path or "/")
    return isinstance(job.work, wire.Push) or any(asks_hub(path) for path in models)


def server_redaction() -> Redaction:
    """Takes out the secrets that this server was started with."""
    named = (value for name, value in os.environ.items() if any(word in name.upper() for word in _SECRET_NAMES))
    addresses = (secret for value in os.environ.values() for secret in credentials_in(value))
    return Redaction((hub_token() or "", *named, *addresses))
