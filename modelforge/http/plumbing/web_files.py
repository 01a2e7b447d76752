"""The files of our own pages, as they lie in the package."""

from functools import cache
from importlib.resources import files


@cache
def web_file(name: str) -> bytes:
    """The bytes of a file of `modelforge/web`."""
    return (files("modelforge") / "web" / name).read_bytes()
