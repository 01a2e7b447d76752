"""A client of the HTTP API, for the terminal: what `modelforge train` and its sisters talk through."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from modelforge.errors import ForgeError

_T = TypeVar("_T", bound=Struct)
_NOT_A_SUCCESS = 400
_AGAIN_SECONDS = 1.0
_TRIES = 60
_SOCKET = "unix:"


class RequestRefused(ForgeError):
    """The server refused, with a status code, or cannot be reached."""

    def __init__(self, message: str, detail: str = "", *, status: int | None = None) -> None:
        super().__init__(message, detail)
        self.status = status


class _Problem(Struct):
    error: str
    detail: str


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

    async def upload(self, file: Path, kind: type[_T]) -> _T:
        """Send a dataset.

        Raises:
            RequestRefused: why not.
        """
        with file.open("rb") as stream:
            form = aiohttp.FormData()
            form.add_field("file", stream, filename=file.name)
            return await self._ask("POST", "/api/upload_dataset", kind, form)

    async def _ask(self, method: str, path: str, kind: type[_T], body: bytes | aiohttp.FormData | None) -> _T:
        headers = {"Content-Type": "application/json"} if isinstance(body, bytes) else {}
        try:
            async with self._session.request(
                method, self._address + path, data=body, headers=headers, ssl=self._ssl, allow_redirects=False
            ) as answer:
                data = await answer.read()
        except aiohttp.ClientConnectionError as error:
            raise RequestRefused(
                "The server cannot be reached", f"{self.url}: start it with `modelforge serve`, or name it with --url."
            ) from error
        try:
            if answer.status >= _NOT_A_SUCCESS:
                problem = msgspec.json.decode(data, type=_Problem)
                raise RequestRefused(problem.error, problem.detail, status=answer.status)
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestRefused(
                "The answer cannot be read", f"{self.url} answered {answer.status}: is it a ModelForge? {error}"
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
