"""The folder that a server shares with its nodes: one that is not mounted is not taken for an empty one."""

import shutil
from pathlib import Path

import pytest

from modelforge.errors import SettingsInvalid
from modelforge.layout import Layout
from modelforge.supervisor.slurm.shared_root import claim_shared_root

MARK = "modelforge-server.json"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Of a server that has run on the cluster."""
    layout = Layout(tmp_path / "data", tmp_path / "shared")
    layout.make_folders()
    layout.at_nodes().mkdir(mode=0o700)
    claim_shared_root(layout)
    return layout


def test_a_shared_root_that_is_not_mounted_now_is_not_taken_for_a_new_one(layout: Layout, tmp_path: Path) -> None:
    shared, mounted = layout.at_nodes(), tmp_path / "mounted"
    shared.rename(mounted)
    shared.mkdir(mode=0o700)
    with pytest.raises(SettingsInvalid, match="mount its file system"):
        claim_shared_root(layout)
    assert [*shared.iterdir()] == []
    # and once it is mounted
    shared.rmdir()
    mounted.rename(shared)
    claim_shared_root(layout)


def test_a_shared_root_that_was_lost_is_taken_again_with_the_mark_that_the_data_directory_has(layout: Layout) -> None:
    shared = layout.at_nodes()
    shutil.rmtree(shared)
    shared.mkdir(mode=0o700)
    shutil.copy(layout.root / MARK, shared)
    claim_shared_root(layout)
    assert layout.models.is_dir()


def test_a_data_directory_of_another_shared_root_is_told_so_and_leaves_the_new_one_alone(
    layout: Layout, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with pytest.raises(SettingsInvalid, match=f"leads to {layout.at_nodes()}"):
        claim_shared_root(Layout(layout.root, other))
    assert [*other.iterdir()] == []


def test_a_first_start_that_was_killed_between_both_marks_is_made_anew(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data", tmp_path / "shared")
    layout.make_folders()
    layout.at_nodes().mkdir(mode=0o700)
    (layout.root / MARK).write_text('{"id":"c0ffee"}')
    claim_shared_root(layout)
    assert "c0ffee" in (layout.at_nodes() / MARK).read_text()
