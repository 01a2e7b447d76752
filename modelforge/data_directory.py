"""Who has a data directory: one server at a time, and what it leaves there for its owner to find it by."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.errors import DirectoryInUse, SettingsInvalid
from modelforge.layout import Layout
from modelforge.owner_files import write_owner_file


class Holder(Struct, frozen=True, kw_only=True):
    """Who has a data directory: what `lock` says.

    `certificate_sha256`: of the certificate that it shows, in hexadecimal, where it has TLS.
    """

    pid: int
    url: str
    certificate_sha256: str | None = None


@contextlib.contextmanager
def claimed(layout: Layout) -> Iterator[None]:
    """Hold the directory's lock for as long as this process lives; no child inherits it.

    Raises:
        DirectoryInUse: another server has it; the message says which.
        SettingsInvalid: it cannot be made, or not be written.
    """
    try:
        layout.make_folders()
        file = layout.lock.open("a+")
    except OSError as error:
        raise SettingsInvalid("The data directory cannot be used", f"{layout.root}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = holder_of(layout)
            who = f"process {holder.pid} at {holder.url}" if holder else "a server that has not said its name yet"
            raise DirectoryInUse(
                "Another server has this data directory",
                f"{layout.root} is served by {who}; stop it, or use another --data-dir.",
            ) from error
        yield
        file.truncate(0)


def holder_of(layout: Layout) -> Holder | None:
    """Who has the directory, if it has said so."""
    try:
        return msgspec.json.decode(layout.lock.read_bytes(), type=Holder)
    except msgspec.DecodeError:
        return None


def tell_holder(layout: Layout, holder: Holder) -> None:
    """Say who has the directory, in the lock that is held."""
    layout.lock.write_bytes(msgspec.json.encode(holder))


@contextlib.contextmanager
def kept_secret(path: Path, secret: str) -> Iterator[None]:
    """Keep a secret in a file that only its owner may read, and take it away again."""
    write_owner_file(path, secret.encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
