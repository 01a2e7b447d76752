"""Folders that stay what they are: held open, so that nobody puts a link to elsewhere in their place."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from trainer_entry.runtime.failures import PlaceMoved

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def held(root: Path, folder: Path) -> Iterator[Path]:
    """A folder in `root`, made if it is not there, by a path that leads to it whatever becomes of its name.

    Raises:
        PlaceMoved: `root`, or a folder on the way, is a link or no folder.
    """
    with contextlib.ExitStack() as opened:
        where, descriptor = root, _opened(root, None, root)
        opened.callback(os.close, descriptor)
        for name in folder.relative_to(root).parts:
            where /= name
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode=0o777, dir_fd=descriptor)
            descriptor = _opened(name, descriptor, where)
            opened.callback(os.close, descriptor)
        yield Path(f"/proc/self/fd/{descriptor}")


def _opened(name: Path | str, folder: int | None, where: Path) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=folder)
    except (NotADirectoryError, FileNotFoundError) as error:
        raise PlaceMoved(
            f"{where} is no folder any more, but a link or a file: nothing is written through it."
        ) from error
