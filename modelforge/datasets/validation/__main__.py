"""The check as a process of its own: `python -m modelforge.datasets.validation QUESTION`, which is JSON.

It says how far it is and then what it found, one JSON object a line. It exits with 3 where the file cannot be read,
with 4 where the disk is full, and with 5 where it would take more memory than it may.
"""

import gc
import os
import sys
from concurrent.futures.process import BrokenProcessPool

import msgspec

from modelforge.datasets.validation.pipeline import check
from modelforge.datasets.validation.protocol import NO_MEMORY_LEFT, NO_ROOM_LEFT, UNREADABLE, CheckMessage, CheckRequest
from modelforge.errors import NO_ROOM

_NICE = 10  # the server and its trainers come first


def main() -> int:
    """Check the file that is named."""
    os.nice(_NICE)
    gc.disable()  # nothing here refers to itself: counts free it all
    request = msgspec.json.decode(sys.argv[1], type=CheckRequest)
    try:
        send(check(request, send))
    except OSError as error:
        sys.stderr.write(f"{request.filename}: {error.strerror or error}\n")
        return NO_ROOM_LEFT if error.errno in NO_ROOM else UNREADABLE
    except (MemoryError, BrokenProcessPool):
        return NO_MEMORY_LEFT
    return 0


def send(message: CheckMessage) -> None:
    """Write one line on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
