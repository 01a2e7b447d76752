"""What is no valid HTTP never reaches a handler; here it gets an answer of the one shape too."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from modelforge.http.plumbing.problems import of_status, problem_of, response


class _JsonRequestHandler(RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, HttpProcessingError | ConnectionError):  # the client's, not ours: nothing for the log
            status = HTTPStatus.BAD_REQUEST
            if request.writer.output_size > 0:
                raise ConnectionError("An answer was begun already.")
        else:
            status = super().handle_error(request, status, exc, message).status
        remedy = " Its address or a header is too long; shorten it." if isinstance(exc, LineTooLong) else ""
        problem = response(of_status(status, f"The request is not valid HTTP.{remedy}"))
        problem.force_close()
        return problem


class _JsonServer(web.Server):
    def __call__(self) -> RequestHandler:
        return _JsonRequestHandler(self, loop=self._loop, **self._kwargs)


class JsonRunner(web.AppRunner):
    """Runs an application; every answer of its server that is no success is a `Problem`."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        handle = server.request_handler

        async def handle_in_shape(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await handle(request)
            except web.HTTPException as error:  # from before the handlers: an Expect that cannot be met
                return response(problem_of(error))

        return _JsonServer(
            handle_in_shape,
            request_factory=server.request_factory,
            loop=server._loop,  # noqa: SLF001 - aiohttp has no public way to choose the handler's class
            **server._kwargs,  # noqa: SLF001
        )
