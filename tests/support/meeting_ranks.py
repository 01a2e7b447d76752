"""`python -m support.meeting_ranks FOLDER`: a rank that meets the others, and goes on with them until contact is lost.

What they came to together, and how it reaches them, stands in FOLDER/met-RANK.json.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch

from trainer_entry.runtime import distributed
from trainer_entry.runtime.attempt import run_attempt
from trainer_entry.runtime.signals import Signals
from trainer_entry.runtime.stdout import Wire
from trainer_entry.wire import AttemptSpec


def meet(_spec: AttemptSpec, folder: Path, _wire: Wire, _signals: Signals) -> None:
    """Sum something, and then nothing, over and over."""
    distributed.prepare()
    torch.distributed.init_process_group("gloo")
    found = {
        "total": distributed.total(distributed.rank() + 1),
        "network": os.environ.get("GLOO_SOCKET_IFNAME"),
        "pid": os.getpid(),
    }
    partial = folder / f"met-{distributed.rank()}.partial"
    partial.write_text(json.dumps(found))
    partial.rename(folder / f"met-{distributed.rank()}.json")
    while True:
        distributed.wait_for_all()
        time.sleep(0.05)


if __name__ == "__main__":
    distributed._MODULE = b"support.meeting_ranks"  # noqa: SLF001 - ranks are known by what they run
    sys.exit(run_attempt(sys.argv[1], meet))
