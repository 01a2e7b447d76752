"""Takes folders off the disk so that a crash leaves them whole, or out of sight, and the next start ends the work."""

import shutil
import uuid
from pathlib import Path

from modelforge.layout import Layout


def remove_tree(path: Path, layout: Layout) -> None:
    """Move a model's folder to the trash and remove it there; a folder that is gone is no error.

    Raises:
        OSError: it cannot be moved or removed, or it does not lie among the models.
    """
    if not path.is_relative_to(layout.models) or path == layout.models or ".." in path.parts:
        raise OSError(f"{path} does not lie in {layout.models}: not touched")
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        thrown_away = path.rename(layout.trash / uuid.uuid4().hex)
        shutil.rmtree(thrown_away)


def empty_trash(layout: Layout) -> None:
    """Remove for good what was moved to the trash, links as links."""
    for thrown_away in layout.trash.iterdir():
        shutil.rmtree(thrown_away)
