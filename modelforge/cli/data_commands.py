"""The commands that look at a data directory, copy it, and put it back: a server may run meanwhile."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from modelforge.cli.flags import DataDirectory
from modelforge.cli.screen import say, say_json
from modelforge.cli.wording import counted
from modelforge.layout import Layout
from modelforge.settings import load_settings

if TYPE_CHECKING:
    from modelforge.backup.manifest import Manifest

AsJson = Annotated[bool, Parameter(help="print what was found as JSON, for programs")]


def layout_of(data_dir: Path | None) -> Layout:
    """The data directory of the flag, or of the settings.

    Raises:
        SettingsInvalid: a setting cannot be used.
    """
    return Layout(load_settings({} if data_dir is None else {"data_dir": data_dir}).data_dir)


def verify(*, data_dir: DataDirectory = None, json: AsJson = False) -> int:
    """Check that the log is what was written, record by record."""
    from modelforge import audit

    found = audit.verify(layout_of(data_dir))
    if json:
        say_json(msgspec.json.encode(found))
        return 1 if found.faults else 0
    for line in audit.broken_records(found):
        say(line)
    if found.fault_count > len(found.faults):
        say(f"and {found.fault_count - len(found.faults)} more")
    compared = "no snapshot" if found.snapshot is None else f"the snapshot at {found.snapshot}"
    counts = f"{counted(found.records, 'record')}, {compared}, {counted(found.fault_count, 'fault')}"
    say(f"{counts}. Last digest: {found.digest}")
    return 1 if found.faults else 0


def replay(
    *,
    at: Annotated[str, Parameter(help="a position of the log, or a time as in 2026-01-31T12:00:00Z")],
    data_dir: DataDirectory = None,
) -> int:
    """Print status, models and datasets as they once stood, as JSON."""
    from modelforge import audit

    say_json(msgspec.json.encode(audit.state_at(layout_of(data_dir), at)))
    return 0


def doctor(*, data_dir: DataDirectory = None, json: AsJson = False) -> int:
    """Say what is wrong with the data and this machine; nothing is changed."""
    from modelforge.doctor import examination, finding

    findings = examination.examine(layout_of(data_dir))
    if json:
        say_json(msgspec.json.encode(findings))
    else:
        for line in finding.lines(findings):
            say(line)
    return 1 if any(found.level == "problem" for found in findings) else 0


def backup(
    folder: Annotated[Path, Parameter(help="a folder that is not there yet")], /, *, data_dir: DataDirectory = None
) -> int:
    """Copy the data directory, whole and checked; a server may run meanwhile."""
    from modelforge.backup.taking import take_backup

    layout = layout_of(data_dir)
    taken = take_backup(layout, folder)
    for name in taken.left_out:
        say(f"left out: {name} is a link, or no file")
    for name in taken.missing:
        say(f"missing: {layout.root / name} is not there as the log has it; `modelforge doctor` says what to do")
    say(f"Backed up {layout.root} to {folder}: {_measured(taken.manifest)}")
    return 1 if taken.missing else 0


def restore(
    folder: Annotated[Path, Parameter(help="a folder that `modelforge backup` wrote")],
    /,
    *,
    data_dir: DataDirectory = None,
) -> int:
    """Check a backup, and make it a data directory again."""
    from modelforge.backup.restoring import restore_backup

    layout = layout_of(data_dir)
    restored = restore_backup(folder, layout)
    say(f"Restored {layout.root} from {folder}: {_measured(restored)}")
    return 0


def _measured(manifest: "Manifest") -> str:
    from modelforge.doctor.finding import size

    files, position = len(manifest.files), manifest.position
    checked = f"{counted(files, 'file')}, {size(manifest.size)}, every one checked"
    return f"{checked}. Position {position}, digest {manifest.digest}"
