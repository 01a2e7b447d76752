"""Everybody who follows the log: by `/ws/training` the statuses of jobs, by `/api/events/stream` its records.

A subscriber is sent everything once, in order, from any position on. One that keeps up is written to directly, a frame
made once for all. One that falls behind goes on from the log at its own pace, a small part at a time; one that takes
nothing for a while is told so and let go, and comes back with its position. So what waits for a subscriber is bounded:
a part, what may be unsent here, and what the kernel holds.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator

import structlog
from aiohttp import HttpVersion11, WSCloseCode, web
from msgspec import UNSET, Struct

from modelforge.domain.messages import Record
from modelforge.errors import SegmentAway, SegmentDamaged
from modelforge.event_log.sqlite import EventLog
from modelforge.fields import project_struct
from modelforge.http.plumbing.connections import Connection
from modelforge.http.plumbing.frames import (
    HEARTBEAT,
    Frame,
    Goodbye,
    chunk,
    encoded,
    goodbye_event,
    record_chunk,
    recorded_status_frame,
    status_frame,
    text_frame,
    unchunked_record,
)
from modelforge.http.plumbing.route import EVENT_STREAM
from modelforge.http.plumbing.shared_parts import SharedParts
from modelforge.http.plumbing.visits import SOCKET
from modelforge.projections.projector import Projector
from modelforge.projections.status_messages import History, Part, StatusMessage, status_message

_log = structlog.get_logger()
_BEHIND_BYTES = 64 << 10
"""More than this unsent, and a subscriber goes on from the log."""
_KERNEL_BYTES = 256 << 10
"""What the kernel may hold of a connection: by itself it takes several megabytes."""
_LONGEST_PATIENCE_SECONDS = 30.0
_LAST_WORD_SECONDS = 10.0
_GOODBYE_SECONDS = 2.0
HEARTBEAT_SECONDS = 30.0
_COMMENT_SECONDS = 15.0
ENDED = frozenset({web.WSMsgType.CLOSE, web.WSMsgType.CLOSING, web.WSMsgType.CLOSED, web.WSMsgType.ERROR})
_HEADERS = {
    "Content-Type": EVENT_STREAM,
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events back until it has a buffer full of them
}
_RETRY = b"retry: 1000\n\n"
_STOPS = Goodbye(reason="The server stops; come back.")
_TOO_SLOW = Goodbye(reason="Too slow: nothing was read for too long. Come back with your last position.")


class Following(Struct, frozen=True, kw_only=True):
    """What a subscriber wants. `after`: the last position that it has; None: from now on. `stream`: of one job only.

    `records`: the record is sent beside the status.
    """

    after: int | None
    stream: str | None
    records: bool = False


def is_behind(transport: asyncio.Transport) -> bool:
    """Whether whoever reads this has much left to read."""
    return transport.get_write_buffer_size() > _BEHIND_BYTES


class _Subscriber:
    def __init__(
        self,
        connection: Connection,
        transport: asyncio.Transport,
        position: int,
        stream: str | None,
        frame: Frame,
        say_goodbye: Callable[[Goodbye], Awaitable[object]],
    ) -> None:
        self.connection = connection
        self.transport = transport
        self.position = position  # after which it is to be sent what there is, while it is not live
        self.stream = stream
        self.frame = frame
        self.say_goodbye = say_goodbye
        self.catching_up: asyncio.Task[None] | None = None

    @property
    def wants_status(self) -> bool:
        return self.frame in {status_frame, recorded_status_frame}


class Subscribers:
    """Everybody who listens. `still_seconds`: how long any client may take nothing of an answer."""

    def __init__(self, log: EventLog, projector: Projector, still_seconds: float) -> None:
        self._log = log
        self._projector = projector
        self._patience = min(_LONGEST_PATIENCE_SECONDS, still_seconds)
        self._subscribers: set[_Subscriber] = set()
        # By stream, and then by frame: who is sent the same.
        self._live: dict[str | None, dict[Frame, dict[asyncio.Transport, _Subscriber]]] = {}
        self._parts = SharedParts(log)
        self._dismissals: set[asyncio.Task[None]] = set()
        projector.listener = self.publish

    def publish(self, record: Record) -> None:
        """Write a record, which the read models have, to everybody who keeps up."""
        groups = [*self._live.get(None, {}).items(), *self._live.get(record.stream, {}).items()]
        if not groups:
            return
        status = status_message(self._projector.read_models, record)
        frames: dict[Frame, bytes | None] = {}
        for make, alike in groups:
            frame = frames[make] if make in frames else frames.setdefault(make, make(record, status))
            if frame is None:
                continue
            behind = []
            for transport in alike:
                if transport.get_write_buffer_size() > _BEHIND_BYTES:
                    behind.append(transport)
                elif not transport.is_closing():
                    transport.write(frame)
            for transport in behind:
                alike[transport].position = record.position - 1  # of all before it was sent what it wants
                self._start_catching_up(alike[transport])

    async def serve_socket(self, request: web.Request, following: Following) -> web.WebSocketResponse:
        """Send statuses as WebSocket messages until the subscriber leaves; from now on, after one snapshot."""
        websocket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, compress=False, max_msg_size=4096)
        await websocket.prepare(request)
        request[SOCKET] = websocket

        async def say_goodbye(goodbye: Goodbye) -> None:
            code = WSCloseCode.GOING_AWAY if goodbye is _STOPS else WSCloseCode.TRY_AGAIN_LATER
            await websocket.close(code=code, message=goodbye.reason.encode())

        frame = recorded_status_frame if following.records else status_frame
        with self._listening(request, following, frame, say_goodbye) as subscriber:
            if subscriber is not None and following.after is None:
                subscriber.transport.write(text_frame(encoded(self._snapshot(following.stream))))
            while subscriber is not None and (await websocket.receive()).type not in ENDED:
                pass  # nothing that a subscriber says changes anything
        return websocket

    async def serve_events(self, request: web.Request, following: Following) -> web.StreamResponse:
        """Send records as server-sent events until the subscriber leaves."""
        response = web.StreamResponse(headers=_HEADERS)
        response.force_close()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def say_goodbye(goodbye: Goodbye) -> None:
            last = goodbye_event(goodbye)
            if request.transport is not None and not ended.done():
                request.transport.write(chunk(last) if is_chunked else last)
                ended.set_result(None)  # aiohttp writes the end, once the handler has returned
            if isinstance(request.protocol, Connection):
                await asyncio.wait({request.protocol.lost})

        is_chunked = request.version >= HttpVersion11
        heartbeat = chunk(HEARTBEAT) if is_chunked else HEARTBEAT
        with contextlib.suppress(ConnectionError):  # it left
            await response.write(_RETRY)  # and the headers with it: what follows goes past aiohttp's writer
            frame = record_chunk if is_chunked else unchunked_record
            with self._listening(request, following, frame, say_goodbye) as subscriber:
                while subscriber is not None and not ended.done() and not subscriber.connection.lost.done():
                    waiting = {ended, subscriber.connection.lost}
                    done, _ = await asyncio.wait(waiting, timeout=_COMMENT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if not done and not is_behind(subscriber.transport):
                        subscriber.transport.write(heartbeat)
        return response

    @contextlib.contextmanager
    def _listening(
        self,
        request: web.Request,
        following: Following,
        frame: Frame,
        say_goodbye: Callable[[Goodbye], Awaitable[object]],
    ) -> Iterator[_Subscriber | None]:
        """Take a subscriber in; None if it is gone already."""
        connection, transport = request.protocol, request.transport
        if transport is None or not isinstance(connection, Connection):
            yield None
            return
        connection.is_followed = True
        _bound_kernel_buffer(transport)
        head = self._projector.read_models.position
        position = head if following.after is None else following.after
        subscriber = _Subscriber(connection, transport, position, following.stream, frame, say_goodbye)
        self._subscribers.add(subscriber)
        if following.after is None:
            self._go_live(subscriber)
        else:
            self._start_catching_up(subscriber)
        try:
            yield subscriber
        finally:
            self._let_go(subscriber)

    def _let_go(self, subscriber: _Subscriber) -> None:
        """Send it nothing more."""
        self._subscribers.discard(subscriber)
        self._leave_live(subscriber)
        if subscriber.catching_up is not None:
            subscriber.catching_up.cancel()
            subscriber.catching_up = None

    def _snapshot(self, stream: str | None) -> StatusMessage:
        read_models = self._projector.read_models
        status = read_models.status() if stream is None else read_models.jobs[stream]
        return project_struct(
            status, StatusMessage, position=read_models.position, type="Snapshot", at=read_models.at, record=UNSET
        )

    def _go_live(self, subscriber: _Subscriber) -> None:
        """Send it what comes from now on."""
        of_stream = self._live.setdefault(subscriber.stream, {})
        of_stream.setdefault(subscriber.frame, {})[subscriber.transport] = subscriber

    def _leave_live(self, subscriber: _Subscriber) -> None:
        of_stream = self._live.get(subscriber.stream, {})
        alike = of_stream.get(subscriber.frame, {})
        if alike.pop(subscriber.transport, None) is not None and not alike:
            del of_stream[subscriber.frame]
            if not of_stream:
                del self._live[subscriber.stream]

    def _start_catching_up(self, subscriber: _Subscriber) -> None:
        self._leave_live(subscriber)
        subscriber.catching_up = asyncio.get_running_loop().create_task(self._catch_up(subscriber))

    async def _catch_up(self, subscriber: _Subscriber) -> None:
        """From the log, as fast as the subscriber takes it, until nothing is missing; then it is live."""
        history = History(frame=subscriber.frame, stream=subscriber.stream, with_status=subscriber.wants_status)
        part = Part(position=subscriber.position)
        try:
            while True:
                await self._until_taken(subscriber)
                head = self._projector.read_models.position
                if part.position >= head:
                    self._go_live(subscriber)  # nothing can come in between: this runs in one go
                    return
                part = await self._parts.after(history, part, head)
                if part.data:
                    subscriber.transport.write(part.data)
                subscriber.position = part.position
        except TimeoutError:
            _log.info("subscriber_too_slow", position=subscriber.position)
            self._dismiss(subscriber, _TOO_SLOW)
        except SegmentAway as error:
            _log.info("subscriber_asks_for_what_is_away", position=subscriber.position, file=error.file)
            self._dismiss(subscriber, Goodbye(reason=f"What comes next is in {error.file}, which is not here."))
        except SegmentDamaged as error:
            _log.error("subscriber_asks_for_what_is_damaged", position=subscriber.position, detail=error.detail)
            self._dismiss(subscriber, Goodbye(reason=f"What comes next is in {error.file}, which is damaged."))
        except ConnectionError:
            pass  # it left; its handler ends by itself
        except Exception:
            subscriber.transport.abort()  # it comes back, and is not left waiting for what never comes
            raise

    async def _until_taken(self, subscriber: _Subscriber) -> None:
        """Wait until there is room for more.

        Raises:
            TimeoutError: the subscriber took too little for too long.
            ConnectionError: it is gone.
        """
        if is_behind(subscriber.transport):
            await asyncio.wait_for(subscriber.connection.drained(), self._patience)
        if subscriber.transport.is_closing():
            raise ConnectionResetError("The subscriber is gone.")

    def _dismiss(self, subscriber: _Subscriber, goodbye: Goodbye) -> None:
        """Let one go with a word, in a task of its own: the one that catches up ends with its handler."""
        self._let_go(subscriber)
        task = asyncio.get_running_loop().create_task(_say_goodbye(subscriber, goodbye, _LAST_WORD_SECONDS))
        self._dismissals.add(task)
        task.add_done_callback(self._dismissals.discard)

    async def close(self) -> None:
        """Say goodbye to everybody; who does not answer is cut off."""
        leaving = [*self._subscribers]
        for subscriber in leaving:
            self._let_go(subscriber)
        await asyncio.gather(*(_say_goodbye(subscriber, _STOPS, _GOODBYE_SECONDS) for subscriber in leaving))


async def _say_goodbye(subscriber: _Subscriber, goodbye: Goodbye, seconds: float) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(subscriber.say_goodbye(goodbye), seconds)
    if subscriber.transport.get_write_buffer_size():
        subscriber.transport.abort()


def _bound_kernel_buffer(transport: asyncio.Transport) -> None:
    """Let the kernel hold only so much of what a subscriber does not read."""
    held = transport.get_extra_info("socket")
    if held is None:
        return
    with socket.socket(fileno=os.dup(held.fileno())) as ours:  # uvloop's own object sets no options
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
