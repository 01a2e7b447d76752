"""A trainer that is being started when its server ends."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import uvloop
from support.scenario import spec

from modelforge.layout import Layout
from modelforge.supervisor.local import LocalLauncher
from trainer_entry import wire


def test_a_server_that_is_ended_while_it_starts_a_trainer_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, done, shim = tmp_path / "begun", tmp_path / "done", tmp_path / "shim"
    os.mkfifo(begun)
    shim.write_text(f"#!/bin/sh\necho > {begun}\nsleep 0.2\ntouch {done}\n")
    shim.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(shim))
    attempt = wire.AttemptSpec(job=spec(), attempt=1, token="ours", cpu_threads=1)  # noqa: S106 - no secret

    async def serve() -> None:
        launch = asyncio.create_task(LocalLauncher(Layout(tmp_path / "data")).submit(attempt))
        await asyncio.to_thread(begun.read_text)
        launch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launch

    uvloop.run(serve())
    assert done.exists()
