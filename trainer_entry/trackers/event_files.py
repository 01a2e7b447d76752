"""TensorBoard's event files, by TensorBoard's own writer: torch is not loaded for them."""
# mypy: allow-untyped-calls

import json
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from trainer_entry.trackers.lines import OpenRun, Outcome


class EventFilesRun:
    """A folder of event files: each attempt at a job writes one."""

    def __init__(self, opening: OpenRun, folder: Path) -> None:
        goes_on = any(folder.iterdir())
        self._writer = EventFileWriter(str(folder))
        if goes_on:  # what an earlier attempt made after this step is made again
            self._add(opening.resumed_step + 1, session_log=SessionLog(status=SessionLog.START))
        described = "\n".join(f"    {name}: {json.dumps(value)}" for name, value in opening.config.items())
        self._add(opening.resumed_step, summary=text_pb("config", f"{opening.name}\n\n{described}"))

    def log(self, step: int, figures: dict[str, float]) -> None:
        """One event of all figures of a step; a reader sees it at once."""
        values = [Summary.Value(tag=name, simple_value=figure) for name, figure in figures.items()]
        self._add(step, summary=Summary(value=values))
        self._writer.flush()

    def close(self, _outcome: Outcome) -> None:
        """The file is whole; it has no word for how it ended."""
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))
