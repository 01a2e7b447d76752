"""The secrets of this process: they come in files that only its owner may read, and go into no word of it.

Standard library and msgspec only. An environment could be read by every process of the same user, and is handed on to
each that is started from here.
"""

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, TextIO

import msgspec

from trainer_entry.wire import Tracker
from trainer_entry.wire.redaction import Redaction, credentials_in
from trainer_entry.wire.secret_files import (
    PROXIES_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TRACKER_SECRETS,
    TRACKERS_VARIABLE,
)

_LONGEST_FILE = 1 << 16


def claim_secrets() -> None:
    """Take up the proxies' addresses, and let nothing that this process prints have a secret in it."""
    for read_once in (_proxies, _trackers, _redaction):  # as they were while it stood by
        read_once.cache_clear()
    os.environ.update(_proxies())
    redact_streams()


def redact_streams() -> None:
    """Let nothing be printed with a secret that this process has, or will have claimed: before any import.

    A library's logger keeps the stream that it finds.
    """
    if not isinstance(sys.stderr, _RedactedStream):
        sys.stdout, sys.stderr = _RedactedStream(sys.stdout), _RedactedStream(sys.stderr)


def claim_tracker(tracker: Tracker) -> None:
    """Take up what one tracker is given: where it reports, and its key. For the process of that tracker alone."""
    os.environ.update(_trackers().get(tracker, {}))


def redact(text: str) -> str:
    """A text without a secret of this process."""
    return _redaction()(text)


@cache
def _redaction() -> Redaction:
    token = _content(os.environ.get(TOKEN_FILE_VARIABLE, "")).decode(errors="replace").strip()
    known = [token, os.environ.get("HF_TOKEN", "").strip()]
    known += [secret for address in _proxies().values() for secret in credentials_in(address)]
    for name, value in (pair for variables in _trackers().values() for pair in variables.items()):
        known += [value.strip()] if name in TRACKER_SECRETS else credentials_in(value) if "://" in value else ()
    return Redaction(known)


@cache
def _proxies() -> dict[str, str]:
    content = _content(os.environ.get(PROXIES_VARIABLE, ""))
    return msgspec.json.decode(content, type=dict[str, str]) if content else {}


@cache
def _trackers() -> dict[Tracker, dict[str, str]]:
    content = _content(os.environ.get(TRACKERS_VARIABLE, ""))
    return msgspec.json.decode(content, type=dict[Tracker, dict[str, str]]) if content else {}


def _content(path: str) -> bytes:
    """What a file of secrets has, if there is one."""
    try:
        with Path(path).open("rb") as file:
            return file.read(_LONGEST_FILE)
    except (OSError, ValueError):
        return b""


class _RedactedStream:
    """A stream for people, whose texts have no secret; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
