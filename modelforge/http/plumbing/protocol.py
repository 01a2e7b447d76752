"""The HTTP server: aiohttp's, with connections of ours, and every answer that is no success in the one shape."""

import asyncio
import contextlib

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from modelforge.http.plumbing.connections import Connection, Connections
from modelforge.http.plumbing.gate import GATE
from modelforge.http.plumbing.keys import PROJECTOR
from modelforge.http.plumbing.openai_errors import response
from modelforge.http.plumbing.problems import problem_of
from modelforge.http.plumbing.security_headers import add_security_headers
from modelforge.settings import Settings

_FOR_EVER = 1e9
_GOODBYE_SECONDS = 1.0


class _Server(web.Server):
    connections_of: Connections
    successor: web.Server | None = None

    def __call__(self) -> RequestHandler:
        if self.successor is not None:
            return self.successor()
        return Connection(self.connections_of, self, self._loop, **self._kwargs)


class JsonRunner(web.AppRunner):
    """Runs an application, and watches over its connections."""

    def __init__(self, app: web.Application, settings: Settings, **options: object) -> None:
        # aiohttp's own timer sees only idle connections; ours sees them all.
        super().__init__(app, keepalive_timeout=_FOR_EVER, access_log=None, auto_decompress=False, **options)  # type: ignore[arg-type]
        self._connections = Connections(settings)
        self._watching: asyncio.Task[None] | None = None

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        handle, app = server.request_handler, self.app
        gate = app.get(GATE)  # the application that answers while the log is read has none

        async def handle_in_shape(request: web.BaseRequest) -> web.StreamResponse:
            if gate is not None and PROJECTOR in app and isinstance(request, web.Request):
                made = gate.instant.answer(request, app[PROJECTOR])
                if made is not None:
                    return made
            try:
                return await handle(request)
            except web.HTTPException as error:  # from before the handlers: an Expect that cannot be met
                answer = response(request.path, problem_of(error))
                add_security_headers(answer.headers)
                return answer

        ours = _Server(
            handle_in_shape,
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001 - aiohttp has no public way to choose the handler's class
            **server._kwargs,  # noqa: SLF001
        )
        ours.connections_of = self._connections
        self._watching = asyncio.get_running_loop().create_task(self._connections.watch())
        return ours

    async def give_way(self, other: "JsonRunner") -> None:
        """Listen on for another one, which is set up: every new connection is its, and those of this one end."""
        if not isinstance(self.server, _Server) or other.server is None:
            raise AssertionError("both are set up")
        self.server.successor = other.server
        await self.server.shutdown(_GOODBYE_SECONDS)

    async def cleanup(self) -> None:
        """End all of it."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await super().cleanup()
