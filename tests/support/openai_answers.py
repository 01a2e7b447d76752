"""What the tests of answers have alike: a server whose answers are told beforehand, and OpenAI's client of it."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai

from support.running_server import RunningServer, scripted_server
from support.scripted_inference import WITHDRAWN
from trainer_entry import wire

BUILT_IN = wire.BUILT_IN_MODEL


def scripted(folder: Path) -> Iterator[RunningServer]:
    server = scripted_server(folder / "data", "--scripted-answers")
    yield server
    server.end()


def client_of(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def said(*pieces: str, **how: Any) -> str:
    """A prompt that is answered with these pieces."""
    return json.dumps({"say": pieces, **how})


def asked_of(answer: object) -> wire.Generate:
    """What the worker was asked, out of an answer that says it."""
    assert isinstance(answer, str)
    return msgspec.json.decode(answer, type=wire.Generate)


def withdrawn(server: RunningServer, wanted: int = 0) -> int:
    """How many answers nobody waited for, once there are so many."""
    file = Path(server._data_dir()) / WITHDRAWN  # noqa: SLF001 - within its data directory
    while True:
        found = len(file.read_text().splitlines()) if file.exists() else 0
        if found >= wanted:
            return found
        time.sleep(0.02)
