"""`/ws/training`: every message once, in order, from any position on, however slow the subscriber.

A subscriber that keeps up is written to directly, one frame encoded once for all. One that falls behind goes on
from the log at its own pace, and is closed if it takes nothing for a while: it may come back with `?after=`.
"""

import asyncio
import contextlib
import struct
from functools import partial

import msgspec
import structlog
from aiohttp import WSCloseCode, web

from modelforge.event_log.sqlite import EventLog
from modelforge.fields import project_struct
from modelforge.http.plumbing.visits import SOCKET
from modelforge.projections.projector import Projector
from modelforge.projections.status_messages import History, StatusMessage

_log = structlog.get_logger()
_BEHIND_BYTES = 64 << 10
"""More than this unsent, and a subscriber goes on from the log."""
_PATIENCE_SECONDS = 30.0
_PART = 2000
HEARTBEAT_SECONDS = 30.0
_GOODBYE_SECONDS = 2.0
ENDED = frozenset({web.WSMsgType.CLOSE, web.WSMsgType.CLOSING, web.WSMsgType.CLOSED, web.WSMsgType.ERROR})
_encoder = msgspec.json.Encoder()


def text_frame(payload: bytes) -> bytes:
    """An unmasked, unfragmented text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the lengths of the RFC
        return struct.pack("!BB", 0x81, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def is_behind(transport: asyncio.Transport) -> bool:
    """Whether whoever reads this has much left to read."""
    return transport.get_write_buffer_size() > _BEHIND_BYTES


class _Subscriber:
    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport, position: int) -> None:
        self.socket = socket
        self.transport = transport
        self.position = position  # of the last record that it was sent
        self.live = False
        self.catching_up: asyncio.Task[None] | None = None


class Subscribers:
    """Everybody who listens."""

    def __init__(self, log: EventLog, projector: Projector) -> None:
        self._log = log
        self._projector = projector
        self._subscribers: set[_Subscriber] = set()
        projector.listener = self.publish

    def publish(self, message: StatusMessage) -> None:
        """Write a message to everybody who keeps up."""
        if not self._subscribers:
            return
        frame = text_frame(_encoder.encode(message))
        for subscriber in self._subscribers:
            if not subscriber.live or subscriber.transport.is_closing():
                continue
            if is_behind(subscriber.transport):
                subscriber.live = False
                subscriber.catching_up = asyncio.get_running_loop().create_task(self._catch_up(subscriber))
            else:
                subscriber.transport.write(frame)
                subscriber.position = message.position

    async def serve(self, request: web.Request, after: int | None) -> web.WebSocketResponse:
        """Take a subscriber in until it leaves. `after` None: one snapshot of the status, and then what comes."""
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, compress=False, max_msg_size=4096)
        await socket.prepare(request)
        request[SOCKET] = socket
        transport = request.transport
        if transport is None:
            return socket
        position = self._projector.read_models.position
        subscriber = _Subscriber(socket, transport, position if after is None else after)
        self._subscribers.add(subscriber)
        try:
            if after is None:
                snapshot = self._snapshot()
                subscriber.live = True
                transport.write(text_frame(_encoder.encode(snapshot)))
            else:
                subscriber.catching_up = asyncio.get_running_loop().create_task(self._catch_up(subscriber))
            while (await socket.receive()).type not in ENDED:
                pass  # nothing that a subscriber says changes anything
        finally:
            self._subscribers.discard(subscriber)
            if subscriber.catching_up is not None:
                subscriber.catching_up.cancel()
        return socket

    def _snapshot(self) -> StatusMessage:
        read_models = self._projector.read_models
        return project_struct(
            read_models.status(), StatusMessage, position=read_models.position, type="Snapshot", at=read_models.at
        )

    async def _catch_up(self, subscriber: _Subscriber) -> None:
        """From the log, as fast as the subscriber takes it, until nothing is missing; then it is live."""
        history = History(subscriber.position)
        try:
            while not subscriber.live:
                head = self._projector.read_models.position
                if history.position >= head:
                    subscriber.live = True  # nothing can come in between: this runs in one go
                    return
                messages = await self._log.read(partial(history.read, until=head, limit=_PART))
                for message in messages:
                    # The socket's own send waits while the buffer is full.
                    await asyncio.wait_for(
                        subscriber.socket.send_str(_encoder.encode(message).decode()), _PATIENCE_SECONDS
                    )
                subscriber.position = history.position
        except TimeoutError:
            _log.info("subscriber_too_slow", position=subscriber.position)
            subscriber.transport.abort()
        except ConnectionError:
            pass  # it left; its handler ends by itself
        except Exception:
            subscriber.transport.abort()  # it comes back, and is not left waiting for what never comes
            raise

    async def close(self) -> None:
        """Say goodbye to everybody; who does not answer is cut off."""
        goodbyes = [
            subscriber.socket.close(code=WSCloseCode.GOING_AWAY, message=b"The server stops; come back.")
            for subscriber in self._subscribers
        ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), _GOODBYE_SECONDS)
