"""`python -m served DATA_DIR`: the real server in a process of its own, with scripted trainers."""

import os
import sys
from pathlib import Path

import uvloop

from modelforge.app import serve
from modelforge.layout import Layout
from modelforge.server_log import configure_log
from modelforge.settings import load_settings
from modelforge.supervisor.local import LocalLauncher
from trainer_entry import wire


def command(_spec: wire.AttemptSpec, module: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", module, str(folder)]


def scripted(data_dir: Path) -> LocalLauncher:
    return LocalLauncher(Layout(data_dir), module="scripted_trainer", command=command)


if __name__ == "__main__":
    data_dir = Path(sys.argv[1])
    roots = [str(data_dir.parent), str(data_dir.parent.parent)]
    flags = {"data_dir": data_dir, "port": 0, "dataset_roots": roots, "model_roots": roots}
    variables = {name: value for name, value in os.environ.items() if name.startswith("MODELFORGE_")}
    flags |= {"stop_grace_seconds": 5, "stalled_seconds": 2}
    configure_log()
    uvloop.run(serve(load_settings(flags, environ=variables, folder=data_dir.parent), scripted(data_dir)))
