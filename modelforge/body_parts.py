"""Bodies that are sent and read part by part: a file that says how far it is, and the lines of an answer."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp


async def lines_of(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of a body, of any length."""
    rest = bytearray()
    async for part in content.iter_any():
        rest += part
        if b"\n" in part:
            *lines, rest = rest.split(b"\n")
            for line in lines:
                yield bytes(line)


class CountedFile(io.BufferedReader):
    """A file that says how much of it was read."""

    def __init__(self, path: Path, on_read: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path))
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        data = super().read(size)
        self._on_read(len(data))
        return data
