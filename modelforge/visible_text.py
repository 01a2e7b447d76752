"""Text of others as a terminal may have it: what would not show, or would command the terminal, is spelled out."""

import re

_OBEYED = (
    "\x00-\x1f\x7f-\x9f"  # controls, C0 and C1: with ESC or CSI begin the commands of a terminal
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # the order in which letters are shown
    "\u2028\u2029"  # ends of lines that look like none
    "\ufff9-\ufffb"  # annotations, which hide what they are put on
    "\ud800-\udfff"  # halves of pairs, which no encoding has
)
_HIDDEN = re.compile(f"[{_OBEYED}]")
_HIDDEN_IN_LINES = re.compile(f"(?![\n\t])[{_OBEYED}]")
_BYTE = 0x100


def hidden_in(text: str) -> str | None:
    """The first character of a text that does not show as what it is."""
    found = _HIDDEN.search(text)
    return None if found is None else found[0]


def visible(text: str) -> str:
    r"""A text in one line, with what would not show as Python writes it: `\x1b`, `\u202e`."""
    return _HIDDEN.sub(_escape, text)


def visible_lines(text: str) -> str:
    """The same of a text that may have tabs, and more than one line."""
    return _HIDDEN_IN_LINES.sub(_escape, text)


def visible_json(text: str) -> str:
    """A JSON document that says the same, with what would not show in JSON's own escapes."""
    return _HIDDEN_IN_LINES.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < _BYTE else f"\\u{code:04x}"
