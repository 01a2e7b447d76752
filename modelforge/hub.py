"""The Hugging Face hub as the server asks it: its token, its cache on this machine, and its answers."""

import asyncio
import os
from pathlib import Path

import aiohttp
import msgspec
from huggingface_hub import constants
from msgspec import Struct
from yarl import URL

from modelforge import model_files

_INDEX = "model.safetensors.index.json"
_LONGEST_ANSWER = 8 << 20
_LONGEST_REF = 1000
_PART = 1 << 16
_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class HubAnswer(Struct, frozen=True, gc=False):
    """An answer of the hub. `error_code`: what it says beside a status that is not a success, as RevisionNotFound."""

    status: int
    error_code: str
    body: bytes


class HubUnreachable(Exception):
    """The hub did not answer, or not in time, or what is not read; the message says which."""


class _Index(Struct):
    """The part of `model.safetensors.index.json` that is read."""

    weight_map: dict[str, str]


async def get(path: str, *, seconds: float, connect_seconds: float | None = None) -> HubAnswer:
    """Ask the hub for a path, percent-encoded, with the server's token if it has one.

    `seconds`: for the whole answer. It must come as it is: a few bytes that are packed can stand for gigabytes.

    Raises:
        HubUnreachable: it did not answer, or with more than is read, packed, or by sending us elsewhere.
    """
    token = await asyncio.to_thread(hub_token)
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {token}"} if token else {})
    timeout = aiohttp.ClientTimeout(total=seconds, connect=connect_seconds)
    url = URL(f"{constants.ENDPOINT}{path}", encoded=True)
    try:
        async with aiohttp.ClientSession(
            timeout=timeout, headers=headers, trust_env=True, auto_decompress=False
        ) as session:
            for _ in range(_MOST_REDIRECTS + 1):
                async with session.get(url, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                        return HubAnswer(answer.status, answer.headers.get("X-Error-Code", ""), await _body_of(answer))
                    url = _next_url(url, answer.headers["Location"])
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise HubUnreachable("it did not answer") from error
    raise HubUnreachable("it sends us from one address to the next")


async def _body_of(answer: aiohttp.ClientResponse) -> bytes:
    encoding = answer.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise HubUnreachable(f"it answered packed ({encoding[:20]!r}), and was asked not to")
    body = bytearray()
    async for part in answer.content.iter_chunked(_PART):
        body += part
        if len(body) > _LONGEST_ANSWER:
            raise HubUnreachable(f"it answered more than {_LONGEST_ANSWER} bytes, which are read")
    return bytes(body)


def _next_url(url: URL, location: str) -> URL:
    """Where a redirect leads: a repository that was renamed has another name, on the same host."""
    following = url.join(URL(location, encoded=True))
    if following.origin() != url.origin():
        raise HubUnreachable(f"it sends us to another host, {str(following.origin())[:100]}")
    return following


def hub_token() -> str | None:
    """The server's token for the hub, as trainers find it: of the environment, or of `hf auth login`."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        try:
            token = Path(constants.HF_TOKEN_PATH).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    return token or None


def cached_snapshot(name: str) -> Path | None:
    """The newest snapshot of a hub model that is whole on this machine (the layout of huggingface_hub's cache).

    Of a download that was broken off some files are there: a trainer gets the others where the hub can be reached.
    """
    folder = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        commit = model_files.read_file(folder, "refs/main", _LONGEST_REF).decode().strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    if "/" in commit or commit in {"", ".", ".."}:
        return None
    return snapshot if model_files.has_file(snapshot, "config.json") and _has_weights(snapshot) else None


def _has_weights(snapshot: Path) -> bool:
    if model_files.has_file(snapshot, "model.safetensors"):
        return True
    try:
        index = msgspec.json.decode(model_files.read_index(snapshot, _INDEX), type=_Index)
    except (OSError, ValueError, RecursionError):
        return False
    return all(model_files.has_file(snapshot, file) for file in set(index.weight_map.values()))
