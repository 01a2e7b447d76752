"""What in a model's configuration would bring code of its own: found wherever it stands, and though it stands twice."""

import json

_KERNELS = ("attn_implementation", "experts_implementation")
_SHOWN = 60


def code_in(content: bytes | str) -> str | None:
    """What in a configuration names code, in words; None where nothing does.

    Of a key that stands twice readers take one or the other: every one counts here, at any depth.

    Raises:
        ValueError: it is no JSON in UTF-8.
        RecursionError: it is nested too deeply.
    """
    found: list[str] = []

    def look(pairs: list[tuple[str, object]]) -> dict[str, object]:
        for key, value in pairs:
            if key == "auto_map" and value:
                names = ", ".join(value) if isinstance(value, dict) else json.dumps(value)
                found.append(f"auto_map ({names[:_SHOWN]})")
            elif key.endswith(_KERNELS) and _names_kernel(value):
                found.append(f"{key} ({json.dumps(value)[:_SHOWN]}), a kernel of the hub")
        return dict(pairs)

    json.loads(content if isinstance(content, str) else content.decode(), object_pairs_hook=look)
    return found[0] if found else None


def _names_kernel(value: object) -> bool:
    """Whether it is, or has, the name of a repository: transformers' own implementations have no slash."""
    values = value.values() if isinstance(value, dict) else [value]
    return any(isinstance(one, str) and "/" in one for one in values)
