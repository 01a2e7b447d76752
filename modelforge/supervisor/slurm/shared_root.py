"""The folder that a server shares with the nodes of its cluster: whose it is, and whether the nodes see it."""

import os
import re
import secrets
import stat
import sys
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from modelforge.errors import SettingsInvalid
from modelforge.layout import Layout
from modelforge.owner_files import write_owner_file
from modelforge.supervisor.patient_reads import read_whole
from modelforge.supervisor.slurm.batch_script import is_safe_path
from modelforge.supervisor.slurm.commands import Slurm, SlurmError, SlurmMissing, SlurmRefused, missing_programs
from trainer_entry import wire

_log = structlog.get_logger()
_MARK = "modelforge-server.json"
_RAN = re.compile(r"\btask \d+: Exited with exit code|\bexecve\b")
"""What srun says where a node ran the command, or could not; all else is about getting a node."""
_TRY_SECONDS = 30.0
_SEES = "import os, sys; import trainer_entry.cluster_step; sys.exit(0 if os.path.exists(sys.argv[1]) else 3)"


class _Server(Struct, frozen=True, kw_only=True):
    """Which data directory a shared root belongs to, and the Python that its nodes were seen to have."""

    id: str
    seen_with: str = ""


def check_cluster_settings(shared: Path) -> None:
    """Refuse what no job could be submitted with.

    Raises:
        SettingsInvalid: a command of Slurm is missing, or a path cannot stand in a batch script.
    """
    if missing := missing_programs():
        raise SettingsInvalid(
            "Slurm is not installed on this machine",
            f"{', '.join(missing)}: not on the PATH. The server runs where jobs are submitted, as on a login node.",
        )
    for what, path in (("--shared-root", shared), ("Python's path", Path(sys.executable))):
        if not is_safe_path(path):
            raise SettingsInvalid(
                "A path cannot be used on a cluster",
                f"{what} {path}: letters, digits and ._+@- between slashes are what a batch script can have.",
            )


def claim_shared_root(layout: Layout) -> None:
    """Make the shared root this data directory's, and links to its folders.

    Raises:
        SettingsInvalid: it is another one's, it cannot be written, others could write into it, or the data directory
            has such folders of its own; or it is not what this server left there, as where it is not mounted.
    """
    shared = layout.at_nodes()
    if not shared.is_dir():  # made here, it would lie on this machine's disk where the shared one is not mounted
        raise SettingsInvalid("The shared root is not there", f"{shared}: make the folder, or mount its file system.")
    try:
        _refuse_others(shared)
        own, mark = read_whole(layout.root / _MARK, _Server), read_whole(shared / _MARK, _Server)
        if mark is not None and (own is None or own.id != mark.id):
            raise SettingsInvalid(
                "The shared root belongs to another server",
                f"{shared}: start the server with the data directory that it was made with, or use another folder.",
            )
        if mark is None:
            _refuse_unmounted(layout)
            mark = own or _Server(id=secrets.token_hex(8))
            write_owner_file(layout.root / _MARK, msgspec.json.encode(mark))
            write_owner_file(shared / _MARK, msgspec.json.encode(mark))
        for folder in layout.on_nodes:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _refuse_others(folder)
            _link(layout.root / folder.name, folder)
    except OSError as error:
        raise SettingsInvalid("The shared root cannot be used", f"{shared}: {error.strerror or error}") from error


def _refuse_unmounted(layout: Layout) -> None:
    """Refuse a root without a mark where this data directory has been served from it: its attempts would seem gone.

    Its links tell, which are made after the mark; a data directory that was restored has none.
    """
    shared = layout.at_nodes()
    links = [layout.root / folder.name for folder in layout.on_nodes if (layout.root / folder.name).is_symlink()]
    if not links:
        return
    for link in links:
        _refuse_other_root(link, shared / link.name)
    raise SettingsInvalid(
        "The shared root is not what this server left",
        f"{shared} has no {_MARK}: mount its file system. If it was lost, give the folder back what it had, and copy "
        f"{layout.root / _MARK} into it.",
    )


def _refuse_others(folder: Path) -> None:
    """Refuse what somebody else could put files into, which jobs of this user would run or load."""
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise SettingsInvalid(
            "The shared root is somebody else's",
            f"{folder} belongs to uid {found.st_uid}, and the server runs as {os.geteuid()}: name a folder of its own.",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsInvalid("Others can write into the shared root", f"{folder}: run `chmod go-w {folder}`.")


def _link(link: Path, folder: Path) -> None:
    if link.is_symlink():
        _refuse_other_root(link, folder)
        return
    if link.is_dir():
        try:
            link.rmdir()
        except OSError as error:
            raise SettingsInvalid(
                "The data directory has jobs of its own machine",
                f"{link} is not empty: what it has is not on the cluster's nodes. Use another --data-dir.",
            ) from error
    link.symlink_to(folder)


def _refuse_other_root(link: Path, folder: Path) -> None:
    if link.resolve() != folder.resolve():
        raise SettingsInvalid("The data directory has another shared root", f"{link} leads to {link.resolve()}.")


async def check_nodes(layout: Layout, slurm: Slurm, defaults: wire.ClusterRequest) -> None:
    """Have a node look whether it has the shared root and the server's Python; once for each Python.

    Where Slurm gives no node for it, or nobody answers, that is left for the first job to show.

    Raises:
        SettingsInvalid: a node does not see them.
    """
    mark, python = read_whole(layout.at_nodes() / _MARK, _Server), sys.executable
    if mark is None or mark.seen_with == python:
        return
    wishes = {"--partition": defaults.partition, "--account": defaults.account, "--qos": defaults.qos}
    wishes["--gpus-per-node"] = (
        str(defaults.gpus_per_node) if defaults.gpus_per_node else None
    )  # some take none without
    flags = [f"{flag}={value}" for flag, value in wishes.items() if value is not None]
    try:
        await slurm.try_on_node(flags, [python, "-c", _SEES, str(layout.at_nodes() / _MARK)], _TRY_SECONDS)
    except SlurmMissing:
        raise
    except SlurmError as error:
        if isinstance(error, SlurmRefused) and _RAN.search(str(error)):
            raise SettingsInvalid(
                "A node of the cluster does not see what jobs need",
                f"{layout.at_nodes()} and {python} have to be there on every node, at the same paths. "
                f"Slurm says: {error}",
            ) from error
        _log.warning("nodes_not_checked", why=str(error))
    else:
        write_owner_file(layout.at_nodes() / _MARK, msgspec.json.encode(_Server(id=mark.id, seen_with=python)))
