"""Exports as real processes: what is written goes to the place that was admitted, or nowhere."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from support.running_server import environment
from support.trainer_attempts import job_of

from modelforge.layout import Layout
from modelforge.supervisor.trash import remove_unfinished
from trainer_entry import wire

COPIES = [kind for kind in get_args(wire.ExportFormat) if kind != "gguf"]
_messages = msgspec.json.Decoder(wire.AnyTrainerMessage)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder in a folder, beside a model and what is none of an export's business."""
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights" * 1000)
    (tmp_path / "model" / "sub" / "card.md").write_text("a card")
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere" / "b" / "kept").write_text("kept")
    return tmp_path / "root"


def spec_of(place: Path, root: Path, kind: wire.ExportFormat = "folder", *, known: bool = True) -> wire.JobSpec:
    """An export of the model beside the root; one of an older server did not say the root."""
    said = str(root) if known else None
    export = wire.Export(
        model_id=1, name="cook", path=str(root.parent / "model"), format=kind, to=str(place), root=said
    )
    return job_of(wire.TrainingParameters(), output_dir=str(place), work=export)


def run(spec: wire.JobSpec, folder: Path) -> wire.TrainerFinished | wire.TrainerFailed:
    """The attempt's last word."""
    folder.mkdir()
    attempt = wire.AttemptSpec(job=spec, attempt=1, token="t", cpu_threads=1)  # noqa: S106 - no secret
    (folder / "spec.json").write_bytes(msgspec.json.encode(attempt))
    command = [sys.executable, "-m", "trainer_entry.after_training", str(folder)]
    ended = subprocess.run(command, capture_output=True, check=False, env=environment(), timeout=60)
    last = _messages.decode(ended.stdout.splitlines()[-1])
    assert isinstance(last, wire.TrainerFinished | wire.TrainerFailed), ended.stderr
    return last


def tree(folder: Path) -> dict[str, bytes | None]:
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def link_the_parent(root: Path) -> None:
    (root / "a" / "b").rename(root / "a" / "was")
    (root / "a" / "b").symlink_to(root.parent / "elsewhere" / "b")


def link_above(root: Path) -> None:
    (root / "a").rename(root / "was")
    (root / "a").symlink_to(root.parent / "elsewhere")


def link_the_root(root: Path) -> None:
    root.rename(root.with_name("was"))
    root.symlink_to(root.with_name("was"))


def put_a_file_in_place_of_the_parent(root: Path) -> None:
    (root / "a" / "b").rmdir()
    (root / "a" / "b").write_text("a file")


CHANGES = [link_the_parent, link_above, link_the_root, put_a_file_in_place_of_the_parent]


@pytest.mark.parametrize("kind", COPIES)
def test_an_export_goes_to_its_place_and_leaves_nothing_beside_it(
    root: Path, tmp_path: Path, kind: wire.ExportFormat
) -> None:
    place = root / "a" / "b" / ("n" * (255 - len(wire.partial_export("", "train_000001"))))
    done = run(spec_of(place, root, kind), tmp_path / "attempt")
    assert isinstance(done, wire.TrainerFinished), done
    assert isinstance(done.delivery, wire.Exported)
    assert (done.delivery.path, done.delivery.files) == (str(place), 2)
    assert list(place.parent.iterdir()) == [place]
    if kind == "folder":
        assert tree(place) == tree(tmp_path / "model")


@pytest.mark.parametrize("known", [True, False], ids=["root said", "of an older server"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_parent_that_became_a_link_since_leads_an_export_nowhere(
    root: Path, tmp_path: Path, change: Callable[[Path], None], known: object
) -> None:
    spec = spec_of(root / "a" / "b" / "out", root, known=bool(known))
    change(root)
    before = tree(tmp_path / "elsewhere"), sorted(root.rglob("*"))
    done = run(spec, tmp_path / "attempt")
    assert isinstance(done, wire.TrainerFailed), done
    assert done.kind == "PlaceMoved"
    assert str(root) in done.message
    assert (tree(tmp_path / "elsewhere"), sorted(root.rglob("*"))) == before


def test_the_data_directory_s_own_folder_is_made_and_is_no_link(root: Path, tmp_path: Path) -> None:
    spec = spec_of(root / "exports" / "train_000001.tar", root, "tar")
    assert isinstance(run(spec, tmp_path / "one"), wire.TrainerFinished)
    (root / "exports").rename(root / "was")
    (root / "exports").symlink_to(tmp_path / "elsewhere")
    done = run(spec, tmp_path / "two")
    assert isinstance(done, wire.TrainerFailed)
    assert done.kind == "PlaceMoved"
    assert tree(tmp_path / "elsewhere") == {"b": None, "b/kept": b"kept"}


def test_a_place_that_became_a_link_is_taken(root: Path, tmp_path: Path) -> None:
    place = root / "a" / "b" / "out"
    place.symlink_to(tmp_path / "elsewhere")
    done = run(spec_of(place, root), tmp_path / "attempt")
    assert isinstance(done, wire.TrainerFailed)
    assert done.kind == "PlaceTaken"
    assert tree(tmp_path / "elsewhere") == {"b": None, "b/kept": b"kept"}


def test_an_export_of_a_link_has_no_word_of_what_it_leads_to(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model" / "leaks").symlink_to(tmp_path / "elsewhere" / "b" / "kept")
    (tmp_path / "model" / "sub" / "folder").symlink_to(tmp_path / "elsewhere")
    done = run(spec_of(root / "a" / "b" / "out", root), tmp_path / "attempt")
    assert isinstance(done, wire.TrainerFinished), done
    assert set(tree(root / "a" / "b" / "out")) == {"model.safetensors", "sub", "sub/card.md"}


@pytest.mark.parametrize("change", [None, link_the_parent, link_above, link_the_root])
def test_what_an_export_left_half_done_is_removed_where_it_was_and_nowhere_else(
    root: Path, tmp_path: Path, change: Callable[[Path], None] | None
) -> None:
    spec = spec_of(root / "a" / "b" / "out", root)
    Path(spec.partial_output).mkdir()
    (Path(spec.partial_output) / "copy").write_text("half")
    decoy = tmp_path / "elsewhere" / "b" / Path(spec.partial_output).name
    decoy.mkdir()
    (decoy / "kept").write_text("kept")
    layout = Layout(tmp_path / "data")
    layout.make_folders()
    if change is not None:
        change(root)
    remove_unfinished(spec, layout)
    assert (decoy / "kept").read_text() == "kept"
    assert (change is None) == (not [*tmp_path.rglob("copy")])
