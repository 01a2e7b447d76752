"""The commands that look at a data directory, copy it, and put it back: a server may run meanwhile."""

import os
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
    settings = load_settings({} if data_dir is None else {"data_dir": data_dir})
    return Layout(settings.data_dir, settings.shared_root)


def verify(
    *,
    segment: Annotated[Path | None, Parameter(help="a segment of an archived log: it is checked alone")] = None,
    data_dir: DataDirectory = None,
    json: AsJson = False,
) -> int:
    """Check that the log is what was written, record by record; what was archived of it too."""
    from modelforge import audit

    if segment is not None:
        return _verify_segment(segment, as_json=json)
    found = audit.verify(layout_of(data_dir))
    if json:
        say_json(msgspec.json.encode(found))
        return 1 if found.faults else 0
    for away in found.away:
        say(f"not here: {away.file} with the positions {away.first} to {away.last}; the chain goes on behind it")
    for line in audit.broken_records(found.faults):
        say(line)
    if found.fault_count > len(found.faults):
        say(f"and {found.fault_count - len(found.faults)} more")
    archived = f" ({found.archived} archived)" if found.archived else ""
    compared = "no snapshot" if found.snapshot is None else f"the snapshot at {found.snapshot}"
    counts = f"{counted(found.records, 'record')}{archived}, {compared}, {counted(found.fault_count, 'fault')}"
    say(f"{counts}. Last digest: {found.digest}")
    return 1 if found.faults else 0


def _verify_segment(path: Path, *, as_json: bool) -> int:
    from modelforge import audit

    found = audit.verify_segment(path)
    if as_json:
        say_json(msgspec.json.encode(found))
        return 1 if found.faults else 0
    for line in audit.broken_records(found.faults):
        say(line)
    if found.last:
        say(f"Positions {found.first} to {found.last}, {counted(len(found.faults), 'fault')}. SHA-256: {found.sha256}")
        say(f"Digest before: {found.start}")
        say(f"Last digest:   {found.end}")
    return 1 if found.faults else 0


def archive(
    *,
    before: Annotated[str, Parameter(help="a position of the log, or a time as in 2026-01-31T12:00:00Z")],
    data_dir: DataDirectory = None,
    json: AsJson = False,
) -> int:
    """Move the log's records before a position into compressed files; the server has to be stopped."""
    from modelforge import archive as archiving
    from modelforge.doctor.finding import size

    os.umask(0o077)  # segments and snapshot are for the owner only, as the log is
    layout = layout_of(data_dir)
    done = archiving.archive(layout, before, tell=say_nothing if json else _say_archived)
    if json:
        say_json(msgspec.json.encode(done))
    elif done.segments:
        files, folder = counted(len(done.segments), "segment"), layout.segments
        say(f"Archived {counted(done.records, 'record')} in {files} of {size(done.size)} in {folder}")
        say(f"{layout.log}: {size(done.before)} before, {size(done.after)} now")
    else:
        say(f"Nothing is left to archive before {before}: the log is archived up to position {done.last}")
    if done.unfinished is not None and not json:
        say(f"{done.unfinished} is not over: its records, and those after its first one, stay in the log")
    return 0


def _say_archived(name: str) -> None:
    say(f"archived: {name}")


def say_nothing(_line: str) -> None:
    """Pass a line over."""


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
    for name in taken.away:
        say(f"not here, and so not in the backup: {name}")
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
