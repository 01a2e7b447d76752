"""The client whose methods are awaited."""

import copy
import os
from types import TracebackType
from typing import Self

from modelforge.client.datasets import DatasetCalls
from modelforge.client.jobs import JobCalls
from modelforge.client.models import ModelCalls
from modelforge.client.server import ServerCalls
from modelforge.connection import Connection


class AsyncClient(JobCalls, DatasetCalls, ModelCalls, ServerCalls):
    """A client of the server at `url`: http://127.0.0.1:8000, or `$MODELFORGE_URL`, or `unix:PATH`.

    `token`: by default `$MODELFORGE_API_TOKEN`. `certificate_sha256`: the one certificate that the server may show.
    Methods are called as the operations of `openapi.json`, and each answer is the Struct that the server makes.
    """

    def __init__(
        self, url: str | None = None, *, token: str | None = None, certificate_sha256: str | None = None
    ) -> None:
        url = url or os.environ.get("MODELFORGE_URL") or "http://127.0.0.1:8000"
        token = token or os.environ.get("MODELFORGE_API_TOKEN", "").strip() or None
        super().__init__(Connection(url, token=token, certificate_sha256=certificate_sha256))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        await self._connection.close()

    def with_idempotency_key(self, key: str) -> Self:
        """The same client, which sends a key: what is asked twice with it is done once, and answered again.

        A key stands for one request. The connections are those of this client.
        """
        keyed = copy.copy(self)
        keyed._key = key  # noqa: SLF001 - it is one of us
        return keyed
