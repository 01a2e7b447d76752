"""A client of the HTTP API, for the terminal: what `modelforge train` and its sisters talk through."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct

from modelforge.errors import DatasetReport, ForgeError, Refusal

_T = TypeVar("_T", bound=Struct)
_NOT_A_SUCCESS = 400
_AGAIN_SECONDS = 1.0
_TRIES = 60
_SOCKET = "unix:"
_EVENT, _DATA = b"event: ", b"data: "


class RequestRefused(ForgeError):
    """The server refused, with a status code, or cannot be reached."""

    def __init__(
        self,
        message: str,
        detail: str = "",
        *,
        status: int | None = None,
        field: str | None = None,
        refusals: tuple[Refusal, ...] = (),
        validation: DatasetReport | None = None,
    ) -> None:
        super().__init__(message, detail)
        self.status = status
        self.field = field
        self.refusals = refusals
        self.validation = validation


class _Problem(Struct):
    error: str
    detail: str
    field: str | None = None
    problems: tuple[Refusal, ...] = ()
    validation: DatasetReport | None = None


class Client:
    """Speaks with the server at `url`, or at a socket: `unix:PATH`.

    `certificate_sha256`: the one certificate that it may show, whatever name that has.
    """

    def __init__(self, url: str, *, token: str | None = None, certificate_sha256: str | None = None) -> None:
        self.url = url.rstrip("/")
        is_socket = self.url.startswith(_SOCKET)
        connector = aiohttp.UnixConnector(self.url.removeprefix(_SOCKET)) if is_socket else None
        self._address = "http://localhost" if is_socket else self.url
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            connector=connector,
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
        )
        self._ssl = True if certificate_sha256 is None else aiohttp.Fingerprint(bytes.fromhex(certificate_sha256))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str, kind: type[_T]) -> _T:
        """Read one thing.

        Raises:
            RequestRefused: why not.
        """
        return await self._ask("GET", path, kind, None)

    async def post(self, path: str, body: Struct | dict[str, object], kind: type[_T]) -> _T:
        """Change something.

        Raises:
            RequestRefused: why not.
        """
        return await self._ask("POST", path, kind, msgspec.json.encode(body))

    async def delete(self, path: str, kind: type[_T]) -> _T:
        """Take one thing away.

        Raises:
            RequestRefused: why not.
        """
        return await self._ask("DELETE", path, kind, None)

    async def upload(
        self, file: Path, kind: type[_T], *, on_sent: Callable[[int], None] | None = None, **fields: str
    ) -> _T:
        """Send a dataset, with further fields of the form; `on_sent` hears how many bytes went with each part.

        Raises:
            RequestRefused: why not.
        """
        return decoded(await self.upload_bytes(file, on_sent=on_sent, **fields), kind, self.url)

    async def upload_bytes(self, file: Path, *, on_sent: Callable[[int], None] | None = None, **fields: str) -> bytes:
        """The same; the answer is JSON as it came.

        Raises:
            RequestRefused: why not.
        """
        with _CountedFile(file, on_sent or (lambda _: None)) as stream:
            form = aiohttp.FormData()
            for name, value in fields.items():
                form.add_field(name, value)
            form.add_field("file", stream, filename=file.name)
            return await self.ask("POST", "/api/upload_dataset", form)

    async def ask(self, method: str, path: str, body: bytes | aiohttp.FormData | None = None) -> bytes:
        """Any request; the answer is JSON as it came.

        Raises:
            RequestRefused: why not.
        """
        async with self._request(method, path, body) as answer:
            return await answer.read()

    async def read_log(self, job_id: str, *, offset: int = 0, attempt: int | None = None) -> tuple[bytes, int]:
        """A part of what a trainer wrote on stderr, and the offset at which the next part begins.

        Raises:
            RequestRefused: why not.
        """
        of = "" if attempt is None else f"&attempt={attempt}"
        async with self._request("GET", f"/api/jobs/{quote(job_id, safe='')}/logs?offset={offset}{of}") as answer:
            data = await answer.read()
            return data, int(answer.headers.get("X-Next-Offset", offset + len(data)))

    async def stream(self, path: str, body: Struct | dict[str, object]) -> AsyncIterator[tuple[str, bytes]]:
        """The server-sent events that answer a POST: the name and the JSON of each, as it comes.

        Raises:
            RequestRefused: why not; or what went wrong on the way, which is the event `error`.
        """
        async with self._request("POST", path, msgspec.json.encode(body)) as answer:
            event = ""
            async for line in answer.content:
                if line.startswith(_EVENT):
                    event = line.removeprefix(_EVENT).decode().strip()
                elif line.startswith(_DATA):
                    data = line.removeprefix(_DATA).strip()
                    if event == "error":
                        raise _refusal(decoded(data, _Problem, self.url), answer.status)
                    yield event, data

    async def _ask(self, method: str, path: str, kind: type[_T], body: bytes | None) -> _T:
        return decoded(await self.ask(method, path, body), kind, self.url)

    @contextlib.asynccontextmanager
    async def _request(
        self, method: str, path: str, body: bytes | aiohttp.FormData | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is a success."""
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        try:
            async with self._session.request(
                method, self._address + path, data=body, headers=headers, ssl=self._ssl, allow_redirects=False
            ) as answer:
                if answer.status >= _NOT_A_SUCCESS:
                    raise _refusal(decoded(await answer.read(), _Problem, self.url, answer.status), answer.status)
                yield answer
        except aiohttp.ClientConnectionError as error:
            raise RequestRefused(
                "The server cannot be reached", f"{self.url}: start it with `modelforge serve`, or name it with --url."
            ) from error

    async def follow(self, after: int, kind: type[_T]) -> AsyncIterator[_T]:
        """Every status message after a position; a server that went away is waited for, and nothing is missed."""
        failures = 0
        while True:
            try:
                async with self._session.ws_connect(
                    f"{self._address}/ws/training?after={after}", ssl=self._ssl
                ) as socket:
                    failures = 0
                    async for message in socket:
                        data = message.data.encode()
                        after = msgspec.json.decode(data, type=_Position).position
                        yield msgspec.json.decode(data, type=kind)
            except aiohttp.ClientError as error:
                failures += 1
                if failures > _TRIES:
                    raise RequestRefused("The server does not come back", f"{self.url}: {error}") from error
            await asyncio.sleep(_AGAIN_SECONDS)


class _Position(Struct):
    position: int


class _CountedFile(io.BufferedReader):
    """A file that says how much of it was read."""

    def __init__(self, path: Path, on_read: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        data = super().read(size)
        self._on_read(len(data))
        return data


def decoded(data: bytes, kind: type[_T], url: str, status: int = 200) -> _T:
    """An answer of the server at `url`, as a Struct.

    Raises:
        RequestRefused: it is no such answer.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefused(
            "The answer cannot be read", f"{url} answered {status}: is it a ModelForge? {error}"
        ) from error


def _refusal(problem: _Problem, status: int) -> RequestRefused:
    return RequestRefused(
        problem.error,
        problem.detail,
        status=status,
        field=problem.field,
        refusals=problem.problems,
        validation=problem.validation,
    )
