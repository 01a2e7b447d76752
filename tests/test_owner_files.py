import os
import stat
from pathlib import Path

import pytest

from modelforge.owner_files import partial_of, write_owner_file


def test_a_file_takes_the_place_of_the_earlier_one_and_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"before, and longer")
    file.chmod(0o644)
    partial_of(file).write_bytes(b"left by one that was killed")
    write_owner_file(file, b"after")
    assert file.read_bytes() == b"after"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_and_its_name_are_on_the_disk_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, seen = tmp_path / "secret", []

    def synced(descriptor: int) -> None:
        seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), file.exists()))

    monkeypatch.setattr(os, "fsync", synced)
    write_owner_file(file, b"x")
    assert seen == [(partial_of(file), False), (tmp_path, True)]


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"kept")
    file = tmp_path / "secret"
    file.symlink_to(elsewhere)
    write_owner_file(file, b"x")
    assert (elsewhere.read_bytes(), file.is_symlink()) == (b"kept", False)
