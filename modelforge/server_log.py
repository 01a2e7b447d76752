"""The server's own log: one JSON object a line on stderr. What it says is never worth more than the server."""

import contextlib
import json
import logging
import sys
from typing import TextIO

import msgspec
import structlog

from modelforge.visible_text import visible_json, visible_lines
from trainer_entry.wire.redaction import Redaction


class _Lines:
    """A stream on which a line that cannot be written is left out: its disk is full, or its reader has gone.

    Nothing on it commands a terminal, whoever said it, and no secret is on it.
    """

    def __init__(self, stream: TextIO, redact: Redaction) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(visible_lines(self._redact(text)))

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_log(redact: Redaction) -> None:
    """Write the log to stderr from now on, and what libraries warn of beside it; `redact` takes secrets out."""
    lines = _Lines(sys.stderr, redact)
    logging.basicConfig(handlers=[logging.StreamHandler(lines)], format="%(message)s", level=logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_line),
        ],
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # it writes and flushes, no more
        cache_logger_on_first_use=True,
    )


def _line(event: dict[str, object], **_: object) -> str:
    try:
        return visible_json(msgspec.json.encode(event).decode())
    except UnicodeEncodeError:  # a file's name that is no text
        return json.dumps(event, default=str)
