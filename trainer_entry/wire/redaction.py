"""Secrets taken out of texts before anybody writes them down: those that are known, and what looks like one."""

import re
from collections.abc import Iterable

REDACTED = "[redacted]"
_SHORTEST = 8
"""A shorter secret stands in too many words."""
_TOKENS = re.compile(r"\b(?:hf_[A-Za-z0-9]{34}|mf_[A-Za-z0-9_-]{43})(?![A-Za-z0-9_-])")
"""The tokens of the hub, and those of this server, by their form."""
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s\"'\\:]+:[^/\s\"'\\]+(?=@)")
"""A name and a password in an address."""
_BEFORE_HOST = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://|)([^/\s]*)@")
"""What may stand before the host of an address, which may have no scheme: up to the last @ before a slash."""


class Redaction:
    """Takes secrets out of texts."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(sorted({one for one in secrets if len(one) >= _SHORTEST}, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """The text without a secret; the same object where it has none."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, REDACTED)
        if "f_" in text and _TOKENS.search(text):  # the expression alone takes a hundred times as long
            text = _TOKENS.sub(REDACTED, text)
        if "@" in text and "://" in text and _CREDENTIALS.search(text):
            text = _CREDENTIALS.sub(REDACTED, text)
        return text


def without_credentials(address: str) -> str:
    """An address without the name and password in it."""
    return _BEFORE_HOST.sub(r"\1", address)


def credentials_in(address: str) -> tuple[str, ...]:
    """The secrets in an address: its password, and name and password as they stand together."""
    found = _BEFORE_HOST.match(address)
    if found is None:
        return ()
    _, colon, password = found[2].partition(":")
    return (found[2], password) if colon else (found[2],)
