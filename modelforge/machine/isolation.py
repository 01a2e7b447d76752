"""Children that see what their work needs and nothing else: by bubblewrap, where it is asked for.

The home directory, the data directory and that of temporary files are empty to them, but for the files of their work;
the rest of the file system can be read and not written; and there is no network but loopback, unless they have to ask
the hub.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants
from msgspec import Struct

from modelforge.errors import SettingsInvalid
from modelforge.machine.hub_secrets import asks_hub, job_asks_hub, job_leaves_machine
from modelforge.settings import Settings
from trainer_entry import wire

_PROGRAM = "bwrap"
_TRIAL_SECONDS = 10.0


class Isolation(Struct, frozen=True, gc=False):
    """How children are set apart. `hidden`: the folders that are empty to them."""

    program: str
    hidden: tuple[str, ...]

    def around(self, *, reads: Iterable[str], writes: Iterable[str], network: bool) -> list[str]:
        """What stands before a command that may read and write some paths within the hidden folders."""
        words = [self.program, "--die-with-parent", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev"]
        words += ["--bind", "/proc", "/proc"]
        for folder in self.hidden:
            words += ["--tmpfs", folder]
        for path in filter(None, (*_code(), *reads)):
            words += ["--ro-bind-try", path, path]
        for path in writes:
            words += ["--bind-try", path, path]
        return [*words, *([] if network else ["--unshare-net"]), "--"]

    def around_job(self, job: wire.JobSpec, folder: Path) -> list[str]:
        """What stands before the command of an attempt at a job, whose folder it is."""
        network = job_asks_hub(job)
        adapter = None if job.adapter is None else job.adapter.path
        models = _models((job.model_path, job.reward_model_path, adapter))
        reads = [*(file.path for file in job.files), *job.reward_files, *models]
        writes = [str(folder.parent), str(Path(job.output_dir).parent)]
        match job.work:
            case wire.Export(path=path, to=to, quantizer=quantizer):
                # Beside a program lie the libraries that it was built with.
                reads += [path, *([] if quantizer is None else [str(Path(quantizer).resolve().parent)])]
                writes += [] if to is None else [str(Path(to).parent)]
            case wire.Merge(path=path) | wire.Push(path=path) | wire.Evaluate(path=path):
                reads.append(path)
            case None:
                pass
        writes += _caches(network=network)
        return self.around(reads=reads, writes=writes, network=job_leaves_machine(job))

    def around_view(self, job: wire.JobSpec) -> list[str]:
        """What stands before the command of a look at a dataset as a model reads it."""
        network = asks_hub(job.model_path)
        reads = [job.dataset.path, *_models((job.model_path,))]
        return self.around(reads=reads, writes=_caches(network=network), network=network)

    def around_prompts(self, paths: Iterable[str | None], *, network: bool) -> list[str]:
        """What stands before the command of a playground for the models at some paths."""
        return self.around(reads=_models(paths), writes=_caches(network=network), network=network)


def isolation_of(settings: Settings) -> Isolation | None:
    """How children are set apart on this machine, if they are to be.

    Raises:
        SettingsInvalid: they are, and cannot be.
    """
    if not settings.isolate:
        return None
    program = shutil.which(_PROGRAM)
    if program is None:
        raise SettingsInvalid("--isolate needs bubblewrap", "Install it (apt-get install bubblewrap), or leave it out.")
    home, data = str(Path.home()), str(settings.data_dir)
    isolation = Isolation(program, tuple(dict.fromkeys((tempfile.gettempdir(), home, data))))
    trial = [*isolation.around(reads=(), writes=(), network=False), sys.executable, "-c", "import msgspec"]
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        subprocess.run(trial, check=True, capture_output=True, timeout=_TRIAL_SECONDS)  # noqa: S603 - a list of ours
    except (OSError, subprocess.SubprocessError) as error:
        words = getattr(error, "stderr", None) or str(error).encode()
        raise SettingsInvalid("--isolate cannot be had here", f"{words.decode(errors='replace').strip()}") from error
    return isolation


def _code() -> tuple[str, ...]:
    """Where the interpreter, the libraries and our own code lie."""
    ours = str(Path(wire.__file__ or "").parents[2])
    paths = [path for path in sys.path if path and Path(path).exists()]
    named = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    found = (sys.base_prefix, sys.prefix, ours, *paths, *filter(None, named))
    return tuple(dict.fromkeys(str(Path(path).resolve()) for path in found))


def _models(paths: Iterable[str | None]) -> list[str]:
    """The folders among the names of models, and where the hub's cache has others."""
    folders = [path for path in paths if path is not None and not asks_hub(path)]
    return [*folders, str(Path(constants.HF_HUB_CACHE).resolve())]


def _caches(*, network: bool) -> list[str]:
    """What who asks the hub may write: its cache, and that of the built-in model."""
    if not network:
        return []
    built_in = wire.built_in_model_folder(str(Path.home()), os.environ.get("XDG_CACHE_HOME"))
    return [str(Path(constants.HF_HUB_CACHE).resolve()), str(Path(built_in).parent)]
