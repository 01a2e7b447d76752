"""The metrics that docs/operations.md tells of."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def told_metrics() -> set[str]:
    """Their names."""
    return set(re.findall(r"^\| `(modelforge_\w+)` \|", PAGE.read_text(), re.MULTILINE))
