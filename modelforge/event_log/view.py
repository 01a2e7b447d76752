"""A view of a log from outside, beside a running server or without one, that leaves every file as it is."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Literal, assert_never

from modelforge.errors import LogUnusable
from modelforge.event_log.sqlite import LogReader
from modelforge.layout import Layout

Way = Literal["at rest", "shared", "copied"]
"""How a log is to be read: without a WAL the file is all there is; with one, its index is needed too."""


@contextmanager
def log_view(layout: Layout) -> Iterator[LogReader]:
    """A view of the log that leaves every file as it is, whether a server writes to it, was killed, or is none.

    An ordinary reader would leave a WAL and its index where there was none, or begin the index anew.

    Raises:
        LogUnusable: there is no log.
    """
    if not layout.log.exists():
        raise LogUnusable("There is no event log", f"{layout.log} does not exist.")
    with ExitStack() as stack:
        while True:
            way = way_of(layout)
            try:
                reader = stack.enter_context(_reader(layout, way))
                reader.schema()  # only the first read opens the files
                break
            except (sqlite3.OperationalError, FileNotFoundError):
                if way_of(layout) == way:  # and no server began or ended meanwhile
                    raise
        yield reader


def way_of(layout: Layout) -> Way:
    """How the log is to be read as it lies there now."""
    if not _beside(layout, "-wal").exists():
        return "at rest"
    return "shared" if _beside(layout, "-shm").exists() else "copied"


def _beside(layout: Layout, suffix: str) -> Path:
    return layout.log.with_name(layout.log.name + suffix)


@contextmanager
def _reader(layout: Layout, way: Way) -> Iterator[LogReader]:
    match way:
        case "at rest":
            with closing(LogReader(layout.log, "mode=ro&immutable=1")) as reader:
                yield reader
        case "shared":
            with closing(LogReader(layout.log, "mode=ro&readonly_shm=1")) as reader:
                yield reader
        case "copied":  # as in a copy of a data directory: an index is made beside another copy, and goes with it
            with tempfile.TemporaryDirectory(prefix="modelforge-") as folder:
                copy = Path(shutil.copy(layout.log, folder))
                shutil.copy(_beside(layout, "-wal"), folder)
                with closing(LogReader(copy, segments=layout.segments)) as reader:
                    yield reader
        case _:
            assert_never(way)
