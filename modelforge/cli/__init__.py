"""The command line: `modelforge serve` and its sisters."""

from modelforge.cli.commands import main

__all__ = ["main"]
