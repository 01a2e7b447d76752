"""The secrets that sign what endpoints are sent: a file each, which its owner alone may read, and no copy elsewhere."""

import base64
import contextlib
import errno
import secrets
from collections.abc import Container
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.owner_files import write_owner_file

PREFIX = "whsec_"
_RANDOM_BYTES = 32
_HINT_LETTERS = 4


class Secret(Struct, frozen=True, kw_only=True):
    """A secret, as the receiver has it. `until`: unix seconds after which it signs nothing more; None is never."""

    value: str
    until: float | None = None


def new_secret() -> str:
    """A secret that nobody can guess: 256 random bits."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_RANDOM_BYTES)).decode()


def hint_of(secret: str) -> str:
    """The end of a secret, by which whoever has it knows it again."""
    return "…" + secret[-_HINT_LETTERS:]


class SecretFiles:
    """The secrets in a folder, by the ids of their endpoints."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, webhook_id: str) -> tuple[Secret, ...]:
        """The secrets of an endpoint, the newest first; none where a backup was put back, which has none.

        Raises:
            OSError: their file is there, and cannot be read.
        """
        try:
            return msgspec.json.decode(self._path(webhook_id).read_bytes(), type=tuple[Secret, ...])
        except FileNotFoundError:
            return ()
        except msgspec.DecodeError as error:
            raise OSError(errno.EIO, "it is not what was written") from error

    def write(self, webhook_id: str, kept: tuple[Secret, ...]) -> None:
        """Keep these secrets of an endpoint and no others; they are on the disk when this returns."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_owner_file(self._path(webhook_id), msgspec.json.encode(kept))

    def remove(self, webhook_id: str) -> None:
        """Forget the secrets of an endpoint."""
        self._path(webhook_id).unlink(missing_ok=True)

    def sweep(self, known: Container[str]) -> None:
        """Forget those of endpoints that there are not: they were never answered, or are deleted."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                if path.suffix != ".json" or path.stem not in known:
                    path.unlink(missing_ok=True)

    def _path(self, webhook_id: str) -> Path:
        return self._folder / f"{webhook_id}.json"
