"""`python -m support.forked_pair FOLDER`: an attempt in two processes, as `accelerate launch` runs it, that are forked.

It is to be forked itself from a process that has the libraries of a trainer (support.warm_process). The two have the
command line and the variables that the launcher gives to theirs, meet where it has them meet, and one that fails ends
the other. Their numbers come to stand in FOLDER/ranks, since /proc shows not their variables but those of that process.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import NoReturn

import torch

TRAINER = "trainer_entry.train"
RANKS = "ranks"
_PR_SET_PDEATHSIG = 1


def launched(rank: int, port: int) -> dict[str, str]:
    """What the launcher sets, of which a trainer or its libraries may know."""
    return {
        "ACCELERATE_MIXED_PRECISION": "no",
        "ACCELERATE_DYNAMO_BACKEND": "NO",
        "ACCELERATE_DYNAMO_MODE": "default",
        "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
        "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
        "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "ROLE_RANK": str(rank),
        "ROLE_NAME": "default",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
    }


def main(folder: Path) -> int:
    """Run both to their ends; 1 if either failed."""
    hear = [os.pipe() for _ in range(2)]
    ranks = {_fork(rank, folder, reading): rank for rank, (reading, _) in enumerate(hear)}
    (folder / RANKS).write_text(" ".join(str(pid) for pid in ranks))  # before either has said anything
    # After the forks: it has threads.
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    for reading, writing in hear:
        os.write(writing, str(store.port).encode())
        os.close(writing)
        os.close(reading)
    failed = False
    while ranks:
        pid, status = os.wait()
        ranks.pop(pid, None)
        if status:
            failed = True
            for other in ranks:
                os.kill(other, signal.SIGTERM)
    return int(failed)


def _fork(rank: int, folder: Path, hears: int) -> int:
    pid = os.fork()
    if not pid:
        _train(rank, folder, int(os.read(hears, 16)))
    return pid


def _train(rank: int, folder: Path, port: int) -> NoReturn:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.environ.update(launched(rank, port))
    _show([sys.executable, "-m", TRAINER, str(folder)])
    sys.argv = [TRAINER, str(folder)]
    runpy.run_module(TRAINER, run_name="__main__", alter_sys=True)
    sys.exit()


def _show(command: list[str]) -> None:
    """Have /proc show this command line: it is written where that of the first process stands."""
    begin, end = (int(number) for number in Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    words = b"".join(word.encode() + b"\0" for word in command)
    assert len(words) <= end - begin, "there is no room for it"
    ctypes.memmove(begin, words.ljust(end - begin, b"\0"), end - begin)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
