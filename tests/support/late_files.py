"""A folder that one side of it sees late, as over a network file system, for tests: a file system over it (fuse(4)).

    python -m support.late_files FOLDER SEED LONGEST [NAME=SECONDS ...]

Who looks through the mount sees of what others make in the folder underneath only how it was up to so many seconds
ago: sizes, content, new names, what was renamed and removed. The delay is drawn for each path, up to LONGEST, or is
that of its NAME, so things are seen in another order than they were made. Times of change come later still. What is
made through the mount itself is there at once, for both sides. With the names of a folder it is as with NFS: who
changes one of them looks at them anew.

The kernel's protocol is spoken without a library; it keeps no names or attributes, so every look comes here.
"""

import contextlib
import ctypes
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_IN, _OUT = struct.Struct("<IIQQIIII"), struct.Struct("<IiQ")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_SETATTR = struct.Struct("<IIQQQQQQIIIIIIII")
_TRANSFER = struct.Struct("<QQIIQII")
_BUFFER = 1 << 20
_ATOMIC_TRUNCATE, _SIZES_TELL = 1 << 3, 1 << 12  # pages are thrown away at each open, and as a size changes
_MODE, _SIZE, _MTIME, _ATIME = 1, 8, 32, 16
_FORGET, _INTERRUPT, _DESTROY, _FORGET_BATCH = 2, 36, 38, 42
_COPIED_BYTES = 1 << 22


class _View:
    """A file as it was when it was looked at. `until`: from then on it is looked at anew."""

    def __init__(self, real: Path, found: os.stat_result, until: float, changed_ns: int) -> None:
        self.found, self.until, self.changed_ns = found, until, changed_ns
        self.content: bytes | None = None
        if stat.S_ISREG(found.st_mode) and found.st_size <= _COPIED_BYTES:
            self.content = real.read_bytes()[: found.st_size]


class LateFiles:
    """What the mount shows of the working directory. `delays`: seconds by the names of files; others are drawn."""

    def __init__(self, seed: str, longest: float, delays: dict[str, float]) -> None:
        self._seed, self._longest, self._delays = seed, longest, delays
        self._views: dict[str, _View] = {}
        self._noticed: dict[str, float] = {}
        self._known: set[str] = {""}  # names that are there for this side: it made them, or looked at them anew
        for folder, inner, names in os.walk("."):
            self._known |= {os.path.normpath(f"{folder}/{name}") for name in (*inner, *names)}
        self._ids: dict[str, int] = {"": 1}
        self._paths: dict[int, str] = {1: ""}
        self._files: dict[int, int] = {}  # open for writing, by this side
        self._next = 2
        self.answers: dict[int, Callable[[int, bytes], bytes]] = {
            1: lambda node, rest: self._entry(self._child(node, rest)),
            3: self._getattr,
            4: self._setattr,
            5: lambda node, _: os.fsencode(self._real(self._paths[node]).readlink()),
            6: self._symlink,
            9: self._mkdir,
            10: lambda node, rest: self._remove(os.unlink, node, rest),
            11: lambda node, rest: self._remove(os.rmdir, node, rest),
            12: lambda node, rest: self._rename(node, rest, 8),
            13: self._link,
            14: self._open,
            15: self._read,
            16: self._write,
            17: self._statfs,
            18: self._release,
            20: self._sync,
            25: lambda _, __: b"",
            26: self._init,
            27: lambda _, __: struct.pack("<QII", 0, 0, 0),
            28: self._readdir,
            29: lambda _, __: b"",
            30: lambda _, __: b"",
            34: lambda _, __: b"",
            35: self._create,
            45: lambda node, rest: self._rename(node, rest, 16),
        }

    def serve(self, device: int) -> None:
        """Answer the kernel until the mount is gone."""
        while True:
            try:
                request = os.read(device, _BUFFER)
            except OSError as error:
                if error.errno in {errno.ENOENT, errno.EINTR, errno.EAGAIN}:
                    continue
                return
            _, code, unique, node, *_ = _IN.unpack_from(request)
            if code in {_FORGET, _FORGET_BATCH, _INTERRUPT}:
                continue
            failure, answer = 0, b""
            try:
                answer = self.answers[code](node, request[_IN.size :]) if code in self.answers else b""
                failure = 0 if code in self.answers or code == _DESTROY else errno.ENOSYS
            except OSError as error:
                failure = error.errno or errno.EIO
            with contextlib.suppress(FileNotFoundError):  # whoever asked is gone
                os.write(device, _OUT.pack(_OUT.size + len(answer), -failure, unique) + answer)

    def _names(self, path: str) -> list[str]:
        return sorted(one.name for one in self._real(path).iterdir())

    def _real(self, path: str) -> Path:
        return Path(path)

    def _child(self, node: int, name: bytes) -> str:
        text = name.split(b"\0", 1)[0].decode()
        parent = self._paths[node]
        return f"{parent}/{text}" if parent else text

    def _delay(self, path: str) -> float:
        drawn = random.Random(f"{self._seed}:{path}").uniform(0, self._longest)  # noqa: S311
        return self._delays.get(path.rpartition("/")[2], drawn)

    def _view(self, path: str) -> _View:
        """What is to be seen at a path; ENOENT where nothing is yet, or nothing any more."""
        now, seen = time.monotonic(), self._views.get(path)
        if seen is not None and now < seen.until:
            return seen
        self._views.pop(path, None)
        real = self._real(path)
        found = real.lstat()
        if path not in self._known:
            since = min(self._noticed.setdefault(path, now), now - (time.time() - found.st_ctime))
            if now < since + self._delay(path):
                raise FileNotFoundError(errno.ENOENT, "not seen yet")
            self._known.add(path)
        before = found.st_mtime_ns if seen is None else seen.found.st_mtime_ns
        self._views[path] = _View(real, found, now + self._delay(path), before)
        return self._views[path]

    def _made(self, path: str) -> None:
        """This side made or changed it; and so it looks at the names beside it anew."""
        self._known.add(path)
        self._views.pop(path, None)
        parent = path.rpartition("/")[0]
        self._known |= {f"{parent}/{name}" if parent else name for name in self._names(parent)}

    def _attributes(self, found: os.stat_result, changed_ns: int | None = None) -> bytes:
        changed_ns = found.st_mtime_ns if changed_ns is None else changed_ns
        times = [found.st_atime_ns, changed_ns, found.st_ctime_ns]
        return _ATTR.pack(
            *(found.st_ino, found.st_size, found.st_blocks),
            *(one // 10**9 for one in times),
            *(one % 10**9 for one in times),
            *(found.st_mode, found.st_nlink, found.st_uid, found.st_gid, 0, 4096, 0),
        )

    def _entry(self, path: str) -> bytes:
        view = self._view(path)
        if path not in self._ids:
            self._ids[path], self._paths[self._next] = self._next, path
            self._next += 1
        return struct.pack("<QQQQII", self._ids[path], 0, 0, 0, 0, 0) + self._attributes(view.found, view.changed_ns)

    def _getattr(self, node: int, rest: bytes) -> bytes:
        flags, _, handle = struct.unpack_from("<IIQ", rest)
        if flags & 1 and handle in self._files:
            return struct.pack("<QII", 0, 0, 0) + self._attributes(os.fstat(handle))
        view = self._view(self._paths[node])
        return struct.pack("<QII", 0, 0, 0) + self._attributes(view.found, view.changed_ns)

    def _setattr(self, node: int, rest: bytes) -> bytes:
        valid, _, _, size, _, accessed, changed, _, accessed_ns, changed_ns, _, mode, *_ = _SETATTR.unpack_from(rest)
        path = self._paths[node]
        real = self._real(path)
        if valid & _MODE:
            real.chmod(stat.S_IMODE(mode))
        if valid & _SIZE:
            os.truncate(real, size)
        if valid & (_MTIME | _ATIME):
            os.utime(real, ns=(accessed * 10**9 + accessed_ns, changed * 10**9 + changed_ns), follow_symlinks=False)
        self._made(path)
        return struct.pack("<QII", 0, 0, 0) + self._attributes(real.lstat())

    def _symlink(self, node: int, rest: bytes) -> bytes:
        path = self._child(node, rest)
        self._real(path).symlink_to(os.fsdecode(rest.split(b"\0")[1]))
        self._made(path)
        return self._entry(path)

    def _mkdir(self, node: int, rest: bytes) -> bytes:
        mode, _ = struct.unpack_from("<II", rest)
        path = self._child(node, rest[8:])
        self._real(path).mkdir(mode)
        self._made(path)
        return self._entry(path)

    def _remove(self, how: Callable[[Path], None], node: int, rest: bytes) -> bytes:
        path = self._child(node, rest)
        how(self._real(path))
        self._made(path)
        self._known.discard(path)
        self._ids.pop(path, None)
        return b""

    def _rename(self, node: int, rest: bytes, size: int) -> bytes:
        (target,) = struct.unpack_from("<Q", rest)
        old, new, _ = rest[size:].split(b"\0", 2)
        source, path = self._child(node, old), self._child(target, new)
        self._real(source).rename(self._real(path))
        self._ids.pop(path, None)
        for one in [one for one in self._ids if one == source or one.startswith(f"{source}/")]:
            moved = path + one.removeprefix(source)
            self._ids[moved] = self._ids.pop(one)
            self._paths[self._ids[moved]] = moved
        for one in [one for one in self._views if f"{one}/".startswith((f"{source}/", f"{path}/"))]:
            del self._views[one]
        self._known |= {path + one.removeprefix(source) for one in self._known if one.startswith(f"{source}/")}
        self._made(path)
        self._known.discard(source)
        return b""

    def _link(self, node: int, rest: bytes) -> bytes:
        (old,) = struct.unpack_from("<Q", rest)
        path = self._child(node, rest[8:])
        os.link(self._real(self._paths[old]), self._real(path))
        self._made(path)
        self._views.pop(self._paths[old], None)
        return self._entry(path)

    def _open(self, node: int, rest: bytes) -> bytes:
        flags, _ = struct.unpack_from("<II", rest)
        path, handle = self._paths[node], 0
        if flags & os.O_ACCMODE != os.O_RDONLY:
            handle = os.open(self._real(path), flags & ~(os.O_NOFOLLOW | os.O_CREAT | os.O_EXCL))
            self._files[handle] = node
            self._made(path)
        else:
            self._view(path)
        return struct.pack("<QII", handle, 0, 0)

    def _create(self, node: int, rest: bytes) -> bytes:
        flags, mode, _, _ = struct.unpack_from("<IIII", rest)
        path = self._child(node, rest[16:])
        handle = os.open(self._real(path), flags & ~os.O_NOFOLLOW | os.O_CREAT, stat.S_IMODE(mode))
        self._made(path)
        entry = self._entry(path)
        self._files[handle] = self._ids[path]
        return entry + struct.pack("<QII", handle, 0, 0)

    def _read(self, node: int, rest: bytes) -> bytes:
        handle, offset, size, *_ = _TRANSFER.unpack_from(rest)
        if handle in self._files:
            return os.pread(handle, size, offset)
        view = self._view(self._paths[node])
        if view.content is not None:
            return view.content[offset : offset + size]
        with self._real(self._paths[node]).open("rb") as file:
            return os.pread(file.fileno(), max(0, min(size, view.found.st_size - offset)), offset)

    def _write(self, node: int, rest: bytes) -> bytes:
        handle, offset, size, *_ = _TRANSFER.unpack_from(rest)
        written = os.pwrite(handle, rest[_TRANSFER.size : _TRANSFER.size + size], offset)
        self._views.pop(self._paths[node], None)
        return struct.pack("<II", written, 0)

    def _release(self, _node: int, rest: bytes) -> bytes:
        (handle,) = struct.unpack_from("<Q", rest)
        if self._files.pop(handle, None) is not None:
            os.close(handle)
        return b""

    def _sync(self, _node: int, rest: bytes) -> bytes:
        (handle,) = struct.unpack_from("<Q", rest)
        if handle in self._files:
            os.fdatasync(handle)
        return b""

    def _readdir(self, node: int, rest: bytes) -> bytes:
        _, offset, size, *_ = _TRANSFER.unpack_from(rest)
        parent = self._paths[node]
        answer = b""
        for number, name in enumerate(self._names(parent)[offset:], offset + 1):
            try:
                found = self._view(f"{parent}/{name}" if parent else name).found
            except FileNotFoundError:
                continue
            encoded = name.encode()
            one = struct.pack("<QQII", found.st_ino, number, len(encoded), stat.S_IFMT(found.st_mode) >> 12) + encoded
            one += bytes(-len(one) % 8)
            if len(answer) + len(one) > size:
                break
            answer += one
        return answer

    def _statfs(self, _node: int, _rest: bytes) -> bytes:
        found = os.statvfs(".")
        counts = (found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree)
        return struct.pack("<5Q4I6I", *counts, found.f_bsize, found.f_namemax, found.f_frsize, *[0] * 7)

    def _init(self, _node: int, rest: bytes) -> bytes:
        _, minor, ahead, flags = struct.unpack_from("<IIII", rest)
        asked = flags & (_ATOMIC_TRUNCATE | _SIZES_TELL)
        return struct.pack("<IIIIHHIIHHI7I", 7, min(minor, 31), ahead, asked, 12, 9, 1 << 17, 1, 0, 0, *[0] * 8)


class CannotMountError(Exception):
    """No file system can be mounted here: there is no /dev/fuse, or this user may not."""


@contextlib.contextmanager
def seen_late(folder: Path, seed: int, longest: float, delays: dict[str, float]) -> Iterator[None]:
    """See a folder late until the block ends, in this process and in those that see its mounts.

    Raises:
        CannotMountError: it cannot be.
    """
    named = [f"{name}={seconds}" for name, seconds in delays.items()]
    command = [sys.executable, "-m", "support.late_files", str(folder), str(seed), str(longest), *named]
    tests = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | tests) as serving:
        assert serving.stdout is not None
        try:
            if (said := serving.stdout.readline()) != b"mounted\n":
                raise CannotMountError(said.decode().strip())
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)  # noqa: S607
            serving.kill()


def main(arguments: list[str]) -> int:
    """Mount it over the folder, say so, and serve until it is unmounted."""
    folder, seed, longest, *named = arguments
    delays = {name: float(seconds) for name, _, seconds in (one.partition("=") for one in named)}
    os.chdir(folder)  # what lies under the mount, from before it
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        sys.stdout.write(f"no /dev/fuse: {error}\n")
        return 1
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40755,user_id={os.getuid()},group_id={os.getgid()},allow_other"
    if libc.mount(b"late", os.fsencode(folder), b"fuse.late", 6, options.encode()):  # MS_NOSUID | MS_NODEV
        sys.stdout.write(f"it cannot be mounted: {os.strerror(ctypes.get_errno())}\n")
        return 1
    sys.stdout.write("mounted\n")
    sys.stdout.flush()
    os.umask(0)
    LateFiles(seed, float(longest), delays).serve(device)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
