"""The end of a trainer's log: why it failed, where it could not say so itself."""

from pathlib import Path

_BYTES = 8000
_LINES = 5


def last_words(path: Path) -> str:
    """The last lines of a log as one; the empty text where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    # The launcher's own traceback only says that the trainer failed: what counts stands before it.
    before, launchers, _ = text.rpartition("Traceback (most recent call last)")
    said = before if "accelerate/commands" in text[len(before) :] and launchers else text
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-_LINES:])
