"""What a child needs that asks the hub or reports to a tracker: token, keys, and the proxies' passwords.

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
from modelforge.machine.child_environment import is_secret
from modelforge.owner_files import partial_of, write_owner_file
from trainer_entry import wire
from trainer_entry.wire.redaction import Redaction, credentials_in
from trainer_entry.wire.secret_files import (
    PROXIES_VARIABLE,
    SECRET_FILES,
    TOKEN_FILE_VARIABLE,
    TRACKER_VARIABLES,
    TRACKERS_VARIABLE,
)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


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
        for variable, content in [*_token(), *_proxies()] if asks_hub else ():
            descriptor = os.memfd_create(variable)
            stack.callback(os.close, descriptor)
            os.write(descriptor, content)
            variables[variable] = f"/dev/fd/{descriptor}"
            descriptors.append(descriptor)
        yield Handed(variables, tuple(descriptors))


def write_secrets(folder: Path, job: wire.JobSpec) -> dict[str, str]:
    """Write what an attempt at a job needs into its folder, for its owner only; the variables that name the files.

    An attempt outlives the server, and its processes are started by others that pass no open file on.
    """
    variables = {}
    files = dict(zip((TOKEN_FILE_VARIABLE, PROXIES_VARIABLE, TRACKERS_VARIABLE), SECRET_FILES, strict=True))
    needed = _token() if job_asks_hub(job) else []
    needed += _proxies() if job_leaves_machine(job) else []
    for variable, content in [*needed, *_trackers(job)]:
        path = folder / files[variable]
        write_owner_file(path, content)
        variables[variable] = str(path)
    return variables


def remove_secrets(folder: Path) -> None:
    """Take the secrets of an attempt away."""
    for name in SECRET_FILES:
        (folder / name).unlink(missing_ok=True)
        partial_of(folder / name).unlink(missing_ok=True)


def _token() -> list[tuple[str, bytes]]:
    token = None if constants.HF_HUB_OFFLINE else hub_token()
    return [] if token is None else [(TOKEN_FILE_VARIABLE, token.encode())]


def _proxies() -> list[tuple[str, bytes]]:
    proxies = {name: value for name in _PROXIES if credentials_in(value := os.environ.get(name, ""))}
    return [(PROXIES_VARIABLE, msgspec.json.encode(proxies))] if proxies else []


def _trackers(job: wire.JobSpec) -> list[tuple[str, bytes]]:
    """What the trackers of a job are given of this server's environment, and nobody else is."""
    given = {
        tracker: {name: os.environ[name] for name in TRACKER_VARIABLES[tracker] if os.environ.get(name)}
        for tracker in job.trackers
    }
    return [(TRACKERS_VARIABLE, msgspec.json.encode(given))] if any(given.values()) else []


def asks_hub(path: str) -> bool:
    """Whether a model has to be asked for, as far as its name says: it is no folder."""
    return not path.startswith("/")


def job_asks_hub(job: wire.JobSpec) -> bool:
    """Whether an attempt at a job has to ask the hub."""
    models = (job.model_path, job.reward_model_path or "/")
    return isinstance(job.work, wire.Push) or any(asks_hub(path) for path in models)


def job_leaves_machine(job: wire.JobSpec) -> bool:
    """Whether an attempt at a job has to reach other machines: the hub, or the server of a tracker."""
    sends = "wandb" in job.trackers and bool(os.environ.get("WANDB_API_KEY"))
    asks = "mlflow" in job.trackers and os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http:", "https:"))
    return job_asks_hub(job) or sends or asks


def server_redaction() -> Redaction:
    """Takes out the secrets that this server was started with."""
    named = (value for name, value in os.environ.items() if is_secret(name))
    addresses = (secret for value in os.environ.values() for secret in credentials_in(value))
    return Redaction((hub_token() or "", *named, *addresses))
