"""Reads an attempt's spool from a byte offset: whole lines become messages, everything else is quarantined."""

import asyncio
import contextlib
import hashlib
from io import BytesIO
from pathlib import Path

import msgspec
from msgspec import Struct

from modelforge.domain.job import QuarantinedLine
from modelforge.supervisor.patient_reads import until_it_answers
from trainer_entry import wire

_CHUNK_BYTES = 1 << 19
_decoder: msgspec.json.Decoder[wire.AnyTrainerMessage] = msgspec.json.Decoder(wire.AnyTrainerMessage)


class Batch(Struct, frozen=True, kw_only=True, gc=False):
    """What one read gave. `offset`: first byte that was not taken in. `more`: there may be more to read at once."""

    offset: int
    more: bool
    messages: tuple[wire.AnyTrainerMessage, ...]
    quarantined: tuple[QuarantinedLine, ...]


class Spool:
    """A reader that stands at `offset`; nothing before it is read again, and a shorter file never rewinds it."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._line_start = offset
        self._rest = bytearray()  # what was read of a line whose end has not come, up to the longest line allowed
        self._skipped = 0  # bytes of it beyond that
        self._hash = hashlib.sha256()
        self._touched_ns: int | None = None
        self._ahead: asyncio.Task[Batch | None] | None = None

    def was_touched(self) -> bool:
        """Whether its writer has shown since the last time it was asked that it lives, by a line or without one."""
        try:
            touched_ns = self._path.stat().st_mtime_ns
        except OSError:
            return False
        touched, self._touched_ns = touched_ns != self._touched_ns, touched_ns
        return touched

    async def next(self, *, ended: bool = False) -> Batch | None:
        """What `read` gives, in a thread. Where there is more, that is read while the caller has this.

        A disk that fails is asked again: what is there may be read later.
        """
        ahead, self._ahead = self._ahead, None
        batch = None
        if ahead is not None:
            with contextlib.suppress(OSError):  # it is read again below
                batch = await ahead
        if batch is None:
            batch = await until_it_answers(lambda: self.read(ended=ended))
        if batch is not None and batch.more:
            self._ahead = asyncio.get_running_loop().create_task(asyncio.to_thread(self.read))
        return batch

    def read(self, *, ended: bool = False) -> Batch | None:
        """The lines that are complete now, a bounded number at a time; None if there is none.

        `ended`: nobody writes any more, so what has no end of line is a line that was cut off.
        """
        while True:
            chunk = self._next_chunk()
            if not chunk:
                return self._cut_off() if ended and (self._rest or self._skipped) else None
            more = len(chunk) == _CHUNK_BYTES
            end = chunk.rfind(b"\n") + 1
            if end == 0:
                self._take(chunk)
                continue
            messages = self._all_messages(chunk[:end])
            quarantined: list[QuarantinedLine] = []
            if messages is None:
                messages = self._each_line(chunk[:end], quarantined)
            self._take(chunk[end:])
            return Batch(offset=self._line_start, more=more, messages=tuple(messages), quarantined=tuple(quarantined))

    def _next_chunk(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                file.seek(self._line_start + len(self._rest) + self._skipped)
                return file.read(_CHUNK_BYTES)
        except FileNotFoundError:
            return b""

    def _all_messages(self, lines: bytes) -> list[wire.AnyTrainerMessage] | None:
        """What they say if each is a message, as nearly always; None if one is not, and nothing is taken then."""
        if self._skipped or len(self._rest) + lines.index(b"\n") > wire.MAX_LINE_BYTES:
            return None
        whole = bytes(self._rest) + lines if self._rest else lines
        try:
            messages = list(map(_decoder.decode, BytesIO(whole)))  # each with its end of line, which is but a space
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        self._begin_line(self._line_start + len(whole))
        return messages

    def _each_line(self, lines: bytes, quarantined: list[QuarantinedLine]) -> list[wire.AnyTrainerMessage]:
        messages: list[wire.AnyTrainerMessage] = []
        for line in lines.split(b"\n")[:-1]:
            self._take(line)
            self._finish_line(messages, quarantined)
        return messages

    def _take(self, part: bytes) -> None:
        kept = part[: wire.MAX_LINE_BYTES + 1 - len(self._rest)]
        self._rest += kept
        if len(kept) < len(part):
            if not self._skipped:
                self._hash = hashlib.sha256(self._rest)
            self._hash.update(part[len(kept) :])
            self._skipped += len(part) - len(kept)

    def _finish_line(self, messages: list[wire.AnyTrainerMessage], quarantined: list[QuarantinedLine]) -> None:
        if len(self._rest) > wire.MAX_LINE_BYTES:
            quarantined.append(self._quarantine(f"longer than {wire.MAX_LINE_BYTES} bytes"))
        else:
            try:
                messages.append(_decoder.decode(self._rest))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                quarantined.append(self._quarantine(str(error)))
        self._begin_line(self._line_start + len(self._rest) + self._skipped + 1)

    def _cut_off(self) -> Batch:
        line = self._quarantine("cut off: it has no end of line")
        self._begin_line(self._line_start + line.length)
        return Batch(offset=self._line_start, more=False, messages=(), quarantined=(line,))

    def _quarantine(self, reason: str) -> QuarantinedLine:
        sha256 = self._hash if self._skipped else hashlib.sha256(self._rest)
        return QuarantinedLine(
            offset=self._line_start,
            length=len(self._rest) + self._skipped,
            sha256=sha256.hexdigest(),
            reason=reason[:200],
        )

    def _begin_line(self, offset: int) -> None:
        self._line_start = offset
        self._rest.clear()
        self._skipped = 0
