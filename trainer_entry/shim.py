"""Holds one attempt's processes together and outlives the server.

    python -m trainer_entry.shim FOLDER GRACE MODULE CMD…
    python -m trainer_entry.shim --standby FOLDER MODULE CMD…

It detaches from its caller, becomes the subreaper of everything that the attempt starts, says who it is
(`shim.json`), runs the command with stdout on the spool and stderr on the log, and at the end, once no
descendant is left, says how it went (`exit.json`). SIGTERM asks the ranks (the processes that run MODULE) to
end; whoever is left after GRACE seconds is killed. SIGUSR1 asks them to save a checkpoint. It ends with 0 once
`shim.json` is there, and otherwise with the number of the error that was in the way.

With `--standby` the command is started ahead of an attempt, which comes as one line of JSON by the socket that stdin
is: then the files move into the attempt's folder, and everything is as above. Where the socket ends first, all ends.

Standard library only: it stands beside a training for hours, in a few megabytes.
"""

import contextlib
import errno
import json
import os
import signal
import socket
import sys
from pathlib import Path

from trainer_entry.runtime.orders import await_order
from trainer_entry.runtime.proc import boot_id, start_time
from trainer_entry.runtime.process_tree import ERROR, LOG, SPOOL, ProcessTree
from trainer_entry.runtime.shim_files import write_whole

_STANDBY = "--standby"  # as in the wire, which is not read here: it takes msgspec


def main(arguments: list[str]) -> int:
    """Detach, and return to the caller once `shim.json` is on the disk; the detached process goes on."""
    stands_by = arguments[0] == _STANDBY
    folder, grace, module, *command = [arguments[1], "0", *arguments[2:]] if stands_by else arguments
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # what the server's event loop left open: it waits for its end
    ready, report_end = os.pipe()
    if os.fork() > 0:
        os.close(report_end)
        with os.fdopen(ready, "rb") as pipe:
            word = pipe.read()
        return 0 if word == b"ready" else int(word or ERROR)
    os.close(ready)
    os.setsid()
    os.umask(0o077)
    tree = ProcessTree(Path(folder), float(grace), module)
    try:
        tree.listen(signal.SIGTERM)
        log, spool = tree.open_log(), tree.open_spool()
        if not stands_by:
            _say_who(tree.folder)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        os.write(report_end, str(error.errno).encode())
        os._exit(ERROR)
    os.write(report_end, b"ready")
    os.close(report_end)
    if stands_by:
        with socket.socket(fileno=os.dup(0)) as server:
            if not _stand_by(tree, command, spool, log, server):
                os._exit(0)
    else:
        tree.start(command, spool, log)
        os.close(spool)
    tree.watch()
    tree.kill_all()
    tree.remove_secrets()
    tree.report()
    os._exit(0)


def _say_who(folder: Path) -> None:
    """Write into the attempt's folder who runs it."""
    write_whole(
        folder / "shim.json",
        {
            "pid": os.getpid(),
            "start_time": start_time(os.getpid()),
            "boot_id": boot_id(),
            "token": json.loads((folder / "spec.json").read_bytes())["token"],
        },
    )


def _stand_by(tree: ProcessTree, command: list[str], spool: int, log: int, server: socket.socket) -> bool:
    """Start a trainer ahead, and hand it the attempt that the server names; without one nothing is left."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            tree.start(command, spool, log, stdin=theirs.fileno())
            os.close(spool)
        order = await_order(server, ours, lambda: tree.is_over)
        if order is not None and _take_up(tree, json.loads(order), server):
            with contextlib.suppress(OSError):  # a trainer that has just ended; its end is reported
                ours.sendall(order)
            return True
    failed = tree.launcher_status is not None  # the server reads why, and clears up
    tree.kill_all()
    for name in (SPOOL,) if failed else (SPOOL, LOG):
        (tree.folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # the next server sweeps too
        tree.folder.rmdir()
    return False


def _take_up(tree: ProcessTree, order: dict[str, str], server: socket.socket) -> bool:
    """Be the shim of an attempt from now on, and say so to the server; or that it cannot be, and why."""
    folder, before = Path(order["folder"]), tree.folder
    try:
        for name in (SPOOL, LOG):
            if (folder / name).exists():
                raise FileExistsError(errno.EEXIST, "a file of the attempt is there")
            (before / name).rename(folder / name)
        _say_who(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            server.sendall(f"{error.errno}\n".encode())
        return False
    tree.begin_attempt(folder, float(order["grace_seconds"]))
    with contextlib.suppress(OSError):
        before.rmdir()
    with contextlib.suppress(OSError):  # a server that is gone: the next one finds the attempt
        server.sendall(b"ready\n")
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
