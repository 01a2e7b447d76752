"""What subscribers are sent, as bytes: WebSocket frames, and chunks of a stream of server-sent events.

A frame is made once, and written to everybody who is sent the same.
"""

import struct
from collections.abc import Callable

import msgspec
from msgspec import Struct

from modelforge.domain.messages import Record
from modelforge.projections.status_messages import StatusMessage, logged_record

_encoder = msgspec.json.Encoder()
Frame = Callable[[Record, StatusMessage | None], bytes | None]
"""Makes of a record, and of the status of its job after it, what is sent; None if nothing is."""
HEARTBEAT = b":\n\n"


class Goodbye(Struct, frozen=True, kw_only=True):
    """Why a stream ends, in words for a person."""

    reason: str


def text_frame(payload: bytes) -> bytes:
    """An unmasked, unfragmented text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the lengths of the RFC
        return struct.pack("!BB", 0x81, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def chunk(payload: bytes) -> bytes:
    """A chunk of a body (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def encoded(message: Struct) -> bytes:
    """A message as JSON."""
    return _encoder.encode(message)


def goodbye_event(goodbye: Goodbye) -> bytes:
    """The last event of a stream. It has no id: a client keeps that of the last record."""
    return b"event: goodbye\ndata: %s\n\n" % encoded(goodbye)


def record_event(record: Record) -> bytes:
    """A record as an event whose id is its position, and whose data are its bytes in `/api/events`."""
    return b"id: %d\ndata: %s\n\n" % (record.position, encoded(logged_record(record)))


def status_frame(_record: Record, status: StatusMessage | None) -> bytes | None:
    """A WebSocket frame with the status of a job after one of its events."""
    return None if status is None else text_frame(encoded(status))


def recorded_status_frame(record: Record, status: StatusMessage | None) -> bytes | None:
    """The same, with the record that led to it."""
    if status is None:
        return None
    return text_frame(encoded(msgspec.structs.replace(status, record=logged_record(record))))


def record_chunk(record: Record, _status: StatusMessage | None) -> bytes:
    """A chunk with a record as an event."""
    return chunk(record_event(record))


def unchunked_record(record: Record, _status: StatusMessage | None) -> bytes:
    """A record as an event, for HTTP/1.0, which has no chunks."""
    return record_event(record)
