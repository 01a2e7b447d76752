"""The data directory as a folder: whose it is, what disk it is on, and which server has it."""

import contextlib
import http.client
import os
import pwd
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from modelforge.data_directory import Holder
from modelforge.doctor.finding import Finding, ok, problem, size, warning
from modelforge.layout import Layout

LOG_NEEDS = 128 << 20  # the WAL may grow to 64 MiB before it is cut, and its pages go into the log itself as well
_CHECKPOINTS = 2  # a checkpoint is whole before an older one is removed
_FILES_NEEDED, _FILES_WANTED = 100, 1000  # an attempt makes some ten files, and as many for each checkpoint it keeps
_NETWORKS = re.compile(r"nfs\d?|cifs|smb\d|smbfs|9p|afs|fuse\.(sshfs|s3fs|rclone|gcsfuse|glusterfs)")
_FLEETING = {
    "tmpfs": "when the machine restarts",
    "ramfs": "when the machine restarts",
    "overlay": "with its container",
}
_ANSWERS_WITHIN, _AGAIN_SECONDS = 2.0, 0.1
_WELL = "answers"


class Server(Struct, frozen=True, kw_only=True, gc=False):
    """The process that holds the directory's lock; without a url it has not said one yet."""

    pid: int
    url: str | None


def folder_findings(layout: Layout) -> list[Finding]:
    """Whether it is a folder that this user can use, and no other."""
    root, subject = layout.root, "data directory"
    if not root.exists():
        return [_not_there(root)]
    if not root.is_dir():
        return [problem(subject, f"{root} is no folder", "Move it away, or name another with --data-dir.")]
    if not can_be_read(layout):
        remedy = f"Run this as {_owner(root)}, who owns it, or name another with --data-dir."
        return [problem(subject, f"{root} cannot be read by this user", remedy)]
    findings = [*_access(layout)]
    return findings or [ok(subject, f"{root}: yours, mode {_mode(root):o}")]


def can_be_read(layout: Layout) -> bool:
    """Whether this user can read what lies there."""
    return layout.root.is_dir() and _may(layout.root, os.R_OK | os.X_OK)


def _not_there(root: Path) -> Finding:
    above = next(folder for folder in root.parents if folder.exists())
    if not _may(above, os.W_OK | os.X_OK):
        remedy = "Make it as a user that may, or name another with --data-dir."
        return problem("data directory", f"{root} does not exist, and cannot be made in {above}", remedy)
    return ok("data directory", f"{root} does not exist yet: the first start makes it")


def _access(layout: Layout) -> Iterator[Finding]:
    root, subject = layout.root, "data directory"
    parts = (root, layout.jobs, layout.models, layout.datasets, layout.temporary, layout.trash, layout.log, layout.lock)
    if closed := [part for part in parts if part.exists() and not _may(part, os.W_OK)]:
        remedy = f"Run the server as {_owner(closed[0])}, or give what lies there to its user: chown -R USER {root}"
        yield problem(subject, f"{closed[0]} cannot be written by this user", remedy)
    if foreign := [part for part in parts if part.exists() and part.stat().st_uid != os.geteuid()]:
        remedy = f"Let one user run the server, and own it: chown -R USER {root}"
        yield warning(subject, f"{foreign[0]} is owned by {_owner(foreign[0])}, not by this user", remedy)
    if _mode(root) & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(subject, f"{root} is open to others (mode {_mode(root):o})", f"chmod 700 {root}")


def _may(path: Path, how: int) -> bool:
    return os.access(path, how, effective_ids=True)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _owner(path: Path) -> str:
    number = path.stat().st_uid
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def disk_findings(layout: Layout) -> Iterator[Finding]:
    """Whether the log, checkpoints and new files have room."""
    disk = os.statvfs(layout.root)
    free = disk.f_bavail * disk.f_frsize
    largest = max((_bytes_of(folder) for folder in layout.jobs.glob("*/checkpoints/checkpoint-*")), default=0)
    if free < LOG_NEEDS:
        remedy = f"Free space on the disk of {layout.root}: without {size(LOG_NEEDS)} the log cannot be written soon."
        yield problem("disk", f"{size(free)} free", remedy)
    elif free < _CHECKPOINTS * largest:
        remedy = f"Free space on the disk of {layout.root}, or train with a smaller save_total_limit."
        yield warning("disk", f"{size(free)} free: the largest checkpoint, {size(largest)}, does not fit twice", remedy)
    else:
        yield ok("disk", f"{size(free)} free of {size(disk.f_blocks * disk.f_frsize)}")
    yield _files_finding(disk, layout)


def _bytes_of(folder: Path) -> int:
    """The size of a folder's files; one that is removed meanwhile counts for nothing."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(inside, name).lstat().st_size
    return total


def _files_finding(disk: os.statvfs_result, layout: Layout) -> Finding:
    if disk.f_files == 0:
        return ok("inodes", "this file system does not limit them")
    if disk.f_favail >= _FILES_WANTED:
        return ok("inodes", f"{disk.f_favail} free")
    remedy = f"Remove files from the disk of {layout.root}: it has space, but no room for more names."
    kind = problem if disk.f_favail < _FILES_NEEDED else warning
    return kind("inodes", f"{disk.f_favail} free", remedy)


def filesystem_finding(layout: Layout, mounts: Path = Path("/proc/self/mountinfo")) -> Finding:
    """Whether locks and a shared WAL index work where it lies, and whether it stays (proc_pid_mountinfo(5))."""
    kind, point = "", Path("/")
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        at = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4]))
        if layout.root.is_relative_to(at) and at.is_relative_to(point):  # of two at one point the last one counts
            kind, point = after.split()[0], at
    if _NETWORKS.fullmatch(kind):
        remedy = "Name a --data-dir on a local disk: neither SQLite's WAL nor the server's lock can be relied on there."
        return problem("file system", f"{kind}, mounted at {point}: it is reached over a network", remedy)
    if kind in _FLEETING:
        remedy = "Name a --data-dir on a disk that stays: in a container, a mounted volume."
        return warning("file system", f"{kind}, mounted at {point}: what lies there is gone {_FLEETING[kind]}", remedy)
    return ok("file system", f"{kind}, mounted at {point}")


def server_of(layout: Layout) -> Server | None:
    """Who holds the lock, as the kernel lists it: to try it could keep a server that starts from having it."""
    try:
        lock, named = layout.lock.stat(), _named(layout)
        listed = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return None
    for line in listed:
        match line.split()[1:6]:
            case ["FLOCK", _, "WRITE", pid, place]:
                major, minor, inode = place.split(":")
                is_named = named is not None and named.pid == int(pid)
                # A file system that shows another device to stat (btrfs, overlay) is known by the named process.
                here = (int(major, 16), int(minor, 16)) == (os.major(lock.st_dev), os.minor(lock.st_dev))
                if int(inode) == lock.st_ino and (here or is_named):
                    return Server(pid=int(pid), url=named.url if named is not None and is_named else None)
            case _:
                pass
    return None


def _named(layout: Layout) -> Holder | None:
    """The last server that wrote its name."""
    try:
        return msgspec.json.decode(layout.lock.read_bytes(), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None


def server_finding(layout: Layout, server: Server | None) -> Finding:
    """Whether a server has the directory, and answers; one that begins or ends is given a moment."""
    deadline = time.monotonic() + _ANSWERS_WITHIN
    while server is not None:
        answer = "has not said its address yet" if server.url is None else _answer(server.url)
        if answer == _WELL:
            return ok("server", f"process {server.pid} {answer} at {server.url}")
        if time.monotonic() > deadline:
            remedy = f"`kill {server.pid}` ends it, and trainers go on meanwhile; then start it anew."
            if server.url is None:
                return warning("server", f"process {server.pid} has the directory and {answer}", remedy)
            return problem("server", f"process {server.pid} at {server.url} has the directory but {answer}", remedy)
        time.sleep(_AGAIN_SECONDS)
        server = server_of(layout)
    return _no_server(_named(layout))


def _no_server(named: Holder | None) -> Finding:
    if named is None:
        return ok("server", "none has the directory")
    if Path(f"/proc/{named.pid}").exists() or _answer(named.url) != _WELL:
        return ok("server", f"none has the directory; process {named.pid} was killed, and the next start takes it")
    remedy = "Check there, as in the container that it runs in: from here its owner cannot be found."
    return warning("server", f"no process here has the directory, but a server answers at {named.url}", remedy)


def _answer(url: str) -> str:
    """What a server does when it is asked how it is."""
    connection = _connection(url)
    try:
        connection.request("GET", "/api/health")
        status = connection.getresponse().status
    except TimeoutError:
        return f"does not answer within {_ANSWERS_WITHIN:.0f} s"
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer: {error}"
    finally:
        connection.close()
    return _WELL if status == http.client.OK else f"answers with status {status}"


class _SocketConnection(http.client.HTTPConnection):
    """A connection to a server at a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ANSWERS_WITHIN)
        self._path = path

    def connect(self) -> None:
        """Open it."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_ANSWERS_WITHIN)
        self.sock.connect(self._path)


def _connection(url: str) -> http.client.HTTPConnection:
    """A connection to a server of this machine, whose certificate may be any: nothing is told to it."""
    address = urlsplit(url)
    if address.scheme == "unix":
        return _SocketConnection(url.removeprefix("unix:"))
    host = address.hostname or ""
    if address.scheme == "http":
        return http.client.HTTPConnection(host, address.port, timeout=_ANSWERS_WITHIN)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, address.port, timeout=_ANSWERS_WITHIN, context=context)
