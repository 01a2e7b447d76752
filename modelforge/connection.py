"""A connection to a server: requests, refusals, uploads and streams; what the terminal and the client talk through."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from msgspec import Struct

from modelforge.body_parts import CountedFile, lines_of
from modelforge.server_answers import Problem, RequestRefused, ServerStarts, decoded, refusal_of

_T = TypeVar("_T", bound=Struct)
_NOT_A_SUCCESS, _FAILED, _UNAVAILABLE = 400, 500, 503
_CONNECT_SECONDS = 10
_AGAIN_SECONDS = 1.0
_STARTING_SECONDS = 600
_TRIES = 60
_HEARTBEAT_SECONDS = 30.0
_SILENT_SECONDS = 90.0
"""After which a stream of records is lost: the server says something every 30."""
_SOCKET = "unix:"
_EVENT, _DATA = b"event: ", b"data: "


class Connection:
    """Speaks with the server at `url`, or at a socket: `unix:PATH`. It is opened by the first request.

    `certificate_sha256`: the one certificate that it may show, whatever name that has. A server that starts, and reads
    its log first, is waited for, for ten minutes at most: `on_wait` hears how far it is.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        certificate_sha256: str | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._address = "http://localhost" if self.url.startswith(_SOCKET) else self.url
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._ssl = True if certificate_sha256 is None else aiohttp.Fingerprint(bytes.fromhex(certificate_sha256))
        self._opened: aiohttp.ClientSession | None = None
        self._on_wait = on_wait or (lambda _: None)

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            is_socket = self.url.startswith(_SOCKET)
            self._opened = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                connector=aiohttp.UnixConnector(self.url.removeprefix(_SOCKET)) if is_socket else None,
                headers=self._headers,
            )
        return self._opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; a request after this opens it again."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def get(self, path: str, kind: type[_T]) -> _T:
        """Read one thing.

        Raises:
            RequestRefused: why not.
        """
        return decoded(await self.ask("GET", path), kind, self.url)

    async def post(self, path: str, body: Struct | dict[str, object], kind: type[_T], *, key: str | None = None) -> _T:
        """Change something. `key`: the Idempotency-Key.

        Raises:
            RequestRefused: why not.
        """
        return decoded(await self.ask("POST", path, msgspec.json.encode(body), key=key), kind, self.url)

    async def delete(self, path: str, kind: type[_T], *, key: str | None = None) -> _T:
        """Take one thing away.

        Raises:
            RequestRefused: why not.
        """
        return decoded(await self.ask("DELETE", path, key=key), kind, self.url)

    async def upload(
        self,
        file: Path,
        kind: type[_T],
        *,
        on_sent: Callable[[int], None] | None = None,
        key: str | None = None,
        **fields: str,
    ) -> _T:
        """Send a dataset, with further fields of the form; `on_sent` hears how many bytes went with each part.

        Raises:
            RequestRefused: why not.
        """
        return decoded(await self.upload_bytes(file, on_sent=on_sent, key=key, **fields), kind, self.url)

    async def upload_bytes(
        self, file: Path, *, on_sent: Callable[[int], None] | None = None, key: str | None = None, **fields: str
    ) -> bytes:
        """The same; the answer is JSON as it came.

        Raises:
            RequestRefused: why not.
        """
        await self.ask("GET", "/api/info")  # a server that starts takes no file, and a file is sent once
        with CountedFile(file, on_sent or (lambda _: None)) as stream:
            form = aiohttp.FormData()
            for name, value in fields.items():
                form.add_field(name, value)
            form.add_field("file", stream, filename=file.name)
            return await self.ask("POST", "/api/upload_dataset", form, key=key)

    async def ask(
        self, method: str, path: str, body: bytes | aiohttp.FormData | None = None, *, key: str | None = None
    ) -> bytes:
        """Any request; the answer is JSON as it came.

        Raises:
            RequestRefused: why not.
        """
        async with self._request(method, path, body, key) as answer:
            return await answer.read()

    async def read_log(self, job_id: str, *, offset: int = 0, attempt: int | None = None) -> tuple[bytes, int]:
        """A part of what a trainer wrote on stderr, and the offset at which the next part begins.

        Raises:
            RequestRefused: why not.
        """
        async with self._request("GET", path_of("jobs", job_id, "logs", offset=offset, attempt=attempt)) as answer:
            data = await answer.read()
            return data, int(answer.headers.get("X-Next-Offset", offset + len(data)))

    async def save(self, path: str, to: Path) -> None:
        """Write an answer to a file, part by part.

        Raises:
            RequestRefused: why not; the file is not made then.
        """
        async with self._request("GET", path) as answer:
            with to.open("wb") as file:
                async for part in answer.content.iter_any():
                    await asyncio.to_thread(file.write, part)

    async def stream(
        self, path: str, body: Struct | dict[str, object] | None = None, *, silent_seconds: float | None = None
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """The server-sent events that answer a POST, or a GET if there is no body: the name and the JSON of each.

        `silent_seconds`: how long a server may say nothing before it is taken for lost.

        Raises:
            RequestRefused: why not; or what went wrong on the way, which is the event `error`.
        """
        content = None if body is None else msgspec.json.encode(body)
        method = "GET" if content is None else "POST"
        async with self._request(method, path, content, silent_seconds=silent_seconds) as answer:
            event = ""
            async for line in lines_of(answer.content):
                if line.startswith(_EVENT):
                    event = line.removeprefix(_EVENT).decode().strip()
                elif line.startswith(_DATA):
                    data = line.removeprefix(_DATA).strip()
                    if event == "error":
                        raise refusal_of(decoded(data, Problem, self.url), answer.status)
                    yield event, data
                elif not line:
                    event = ""

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | aiohttp.FormData | None = None,
        key: str | None = None,
        *,
        silent_seconds: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success; one of a server that starts is waited for. What is no bytes is sent once."""
        async with contextlib.AsyncExitStack() as stack:
            left = _STARTING_SECONDS
            while True:
                try:
                    answer = await stack.enter_async_context(self._answered(method, path, body, key, silent_seconds))
                    break
                except ServerStarts as starts:
                    left -= 1
                    if left <= 0 or isinstance(body, aiohttp.FormData):
                        raise
                    self._on_wait(str(starts))
                await asyncio.sleep(_AGAIN_SECONDS)
            yield answer

    @contextlib.asynccontextmanager
    async def _answered(
        self,
        method: str,
        path: str,
        body: bytes | aiohttp.FormData | None,
        key: str | None,
        silent_seconds: float | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success, asked for once."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=silent_seconds)
        headers = {} if key is None else {"Idempotency-Key": key}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                method,
                self._address + path,
                data=body,
                headers=headers,
                ssl=self._ssl,
                allow_redirects=False,
                timeout=timeout,
            ) as answer:
                if answer.status >= _NOT_A_SUCCESS:
                    problem = decoded(await answer.read(), Problem, self.url, answer.status)
                    starts = answer.status == _UNAVAILABLE and "Retry-After" in answer.headers
                    raise refusal_of(problem, answer.status, starts=starts)
                yield answer
        except aiohttp.ClientError as error:
            raise RequestRefused(
                "The server cannot be reached", f"{self.url}: start it with `modelforge serve`, or name it with --url."
            ) from error

    async def follow(self, after: int, kind: type[_T], **query: object) -> AsyncGenerator[_T, None]:
        """Every status message after a position; a server that went away is waited for, and nothing is missed.

        Raises:
            RequestRefused: it cannot be followed so, or the server does not come back.
        """
        failures = 0
        while True:
            path = f"/ws/training?{urlencode({'after': after, **query})}"
            try:
                async with self._session.ws_connect(
                    self._address + path, ssl=self._ssl, max_msg_size=0, heartbeat=_HEARTBEAT_SECONDS
                ) as socket:
                    failures = 0
                    async for message in socket:
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break  # it is lost: nobody answered, or what came is no frame
                        data = message.data.encode()
                        after = msgspec.json.decode(data, type=_Position).position
                        yield msgspec.json.decode(data, type=kind)
            except aiohttp.ClientError as error:
                if isinstance(error, aiohttp.WSServerHandshakeError) and error.status < _FAILED:
                    await self.ask("GET", path)  # the same without the handshake, for the words of the refusal
                failures += 1
                if failures > _TRIES:
                    raise RequestRefused("The server does not come back", f"{self.url}: {error}") from error
            await asyncio.sleep(_AGAIN_SECONDS)

    async def follow_records(self, after: int, kind: type[_T], **query: object) -> AsyncGenerator[_T, None]:
        """Every record of the log after a position, and then what comes, in the same way.

        Raises:
            RequestRefused: it cannot be followed so, or the server does not come back.
        """
        failures = 0
        while True:
            try:
                path = path_of("events", "stream", after=after, **query)
                async with contextlib.aclosing(self.stream(path, silent_seconds=_SILENT_SECONDS)) as events:
                    async for event, data in events:
                        failures = 0
                        if not event:  # a goodbye has one
                            after = msgspec.json.decode(data, type=_Position).position
                            yield msgspec.json.decode(data, type=kind)
            except RequestRefused as refusal:
                failures += 1
                if failures > _TRIES or (refusal.status is not None and refusal.status < _FAILED):
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)


def path_of(*parts: object, **query: object) -> str:
    """A path of the API, each part of it quoted, and what of the query was given; a sequence is given several times."""
    path = "/api/" + "/".join(quote(str(part), safe="") for part in parts)
    given = {name: value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


class _Position(Struct):
    position: int
