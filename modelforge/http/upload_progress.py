"""`/ws/datasets`: how far the uploads are that take a while, for whoever wants to watch.

Nothing of it is recorded: a message that a slow watcher misses is followed by a newer one.
"""

import asyncio
import contextlib
import time
from typing import Literal

import msgspec
from aiohttp import WSCloseCode, web
from msgspec import Struct

from modelforge.http.plumbing.frames import text_frame
from modelforge.http.plumbing.route import Route
from modelforge.http.plumbing.subscribers import ENDED, HEARTBEAT_SECONDS, is_behind
from modelforge.http.plumbing.visits import SOCKET

_GOODBYE_SECONDS = 1.0
_REPORT_EVERY_SECONDS = 0.5
_encoder = msgspec.json.Encoder()


Stage = Literal["receiving", "unpacking", "checking", "taken", "refused"]


class UploadProgress(Struct, frozen=True, kw_only=True, gc=False):
    """The progress of one upload. `total_bytes`: null where it is unknown. `upload`: an id, as names are not unique."""

    upload: str
    filename: str
    stage: Stage
    done_bytes: int
    total_bytes: int | None


class Watchers:
    """Everybody who watches the progress of uploads."""

    def __init__(self) -> None:
        self._transports: dict[web.WebSocketResponse, asyncio.Transport] = {}

    def send(self, progress: UploadProgress) -> None:
        """Send a message to everybody who keeps up."""
        if not self._transports:
            return
        frame = text_frame(_encoder.encode(progress))
        for transport in self._transports.values():
            if not transport.is_closing() and not is_behind(transport):
                transport.write(frame)

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Take a watcher in until it leaves."""
        socket = web.WebSocketResponse(heartbeat=HEARTBEAT_SECONDS, compress=False, max_msg_size=4096)
        await socket.prepare(request)
        request[SOCKET] = socket
        if request.transport is None:
            return socket
        self._transports[socket] = request.transport
        try:
            while (await socket.receive()).type not in ENDED:
                pass  # nothing that a watcher says changes anything
        finally:
            del self._transports[socket]
        return socket

    async def close(self) -> None:
        """Say goodbye to everybody."""
        for socket in [*self._transports]:
            with contextlib.suppress(ConnectionError, TimeoutError):
                goodbye = socket.close(code=WSCloseCode.GOING_AWAY, message=b"The server stops; come back.")
                await asyncio.wait_for(goodbye, _GOODBYE_SECONDS)


class ProgressReporter:
    """Reports the progress of one upload to watchers, every half a second at most."""

    def __init__(self, watchers: Watchers, upload: str, content_length: int | None) -> None:
        self._watchers = watchers
        self._upload = upload
        self._content_length = content_length
        self._last = time.monotonic()
        self.filename = ""

    def receive(self, done_bytes: int) -> None:
        """Report the bytes received, if it is time to. The form is a little longer than the file."""
        if time.monotonic() - self._last > _REPORT_EVERY_SECONDS:
            self.report("receiving", done_bytes, self._content_length)

    def report(self, stage: Stage, done_bytes: int, total_bytes: int | None) -> None:
        """Report how far it is."""
        self._last = time.monotonic()
        self._watchers.send(
            UploadProgress(
                upload=self._upload,
                filename=self.filename,
                stage=stage,
                done_bytes=done_bytes,
                total_bytes=total_bytes,
            )
        )

    def end(self, stage: Literal["taken", "refused"]) -> None:
        """Report how it ended."""
        self.report(stage, 0, None)


WATCHERS = web.AppKey("watchers", Watchers)


async def dataset_socket(request: web.Request) -> web.WebSocketResponse:
    """How far uploads are, as WebSocket messages."""
    return await request.app[WATCHERS].serve(request)


ROUTES = (Route(method="GET", path="/ws/datasets", handler=dataset_socket, answer=None, status=101),)
