"""The server's own log on stderr: for a program one JSON object a line, at a terminal a line for people.

What it says is never worth more than the server.
"""

import contextlib
import json
import logging
import sys
from typing import Literal, TextIO

import msgspec
import structlog
from structlog.typing import Processor

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
        with contextlib.suppress(OSError, ValueError):  # a closed one raises the latter
            self._stream.write(visible_lines(self._redact(text)))

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed one raises the latter
            self._stream.flush()


LogFormat = Literal["auto", "console", "json"]
"""How the log is written; `auto` is `console` where stderr is a terminal, and `json` elsewhere."""


def configure_log(redact: Redaction, log_format: LogFormat = "json") -> None:
    """Write the log to stderr from now on, and what libraries warn of beside it; `redact` takes secrets out."""
    for_people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    lines = _Lines(sys.stderr, redact)
    logging.basicConfig(handlers=[logging.StreamHandler(lines)], format="%(message)s", level=logging.WARNING)
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *(_FOR_PEOPLE if for_people else _FOR_PROGRAMS),
        ],
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # it writes and flushes, no more
        cache_logger_on_first_use=True,
    )


_FOR_PEOPLE: tuple[Processor, ...] = (
    structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
    # Without colours: whatever would command the terminal is spelled out, and they would be too.
    structlog.dev.ConsoleRenderer(colors=False, pad_event_to=24, exception_formatter=structlog.dev.plain_traceback),
)


def _line(event: dict[str, object], **_: object) -> str:
    try:
        return visible_json(msgspec.json.encode(event).decode())
    except UnicodeEncodeError:  # a file's name that is no text
        return json.dumps(event, default=str)


_FOR_PROGRAMS: tuple[Processor, ...] = (
    structlog.processors.TimeStamper(fmt="iso"),
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(serializer=_line),
)
