"""The name of a run at its tracker, which the attempts of a job share."""

from collections.abc import Callable
from pathlib import Path

_FILE = "run-id"


def kept_id(folder: Path, make: Callable[[], str]) -> tuple[str, bool]:
    """The id of the run in `folder`, made by `make` if there is none yet; and whether it was there."""
    file = folder / _FILE
    if file.exists():
        return file.read_text(), True
    made = make()
    partial = file.with_suffix(".partial")
    partial.write_text(made)
    partial.rename(file)
    return made, False
