"""The commands that copy a data directory, and put it back."""

import argparse

from modelforge.backup.manifest import Manifest
from modelforge.backup.restoring import restore_backup
from modelforge.backup.taking import take_backup
from modelforge.cli.screen import say
from modelforge.doctor.finding import size
from modelforge.layout import Layout


def run(options: argparse.Namespace, layout: Layout) -> int:
    """Run one of them; the exit code is 1 where the backup lacks what its log names."""
    if options.command == "restore":
        restored = restore_backup(options.folder, layout)
        say(f"Restored {layout.root} from {options.folder}: {_measured(restored)}")
        return 0
    backup = take_backup(layout, options.folder)
    for name in backup.left_out:
        say(f"left out: {name} is a link, or no file")
    for name in backup.missing:
        say(f"missing: {layout.root / name} is not there as the log has it; `modelforge doctor` says what to do")
    say(f"Backed up {layout.root} to {options.folder}: {_measured(backup.manifest)}")
    return 1 if backup.missing else 0


def _measured(manifest: Manifest) -> str:
    files, position = len(manifest.files), manifest.position
    return f"{files} files, {size(manifest.size)}, every one checked. Position {position}, digest {manifest.digest}"
