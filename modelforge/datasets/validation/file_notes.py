"""What is to be said of a file beside its records."""

from msgspec import Struct

from modelforge.errors import LineError


class FileNotes(Struct, gc=False):
    """`ignored`: the names of what stands in the file and is not read. `warnings`: what a person should know of it."""

    ignored: set[str] = set()
    warnings: list[LineError] = []
