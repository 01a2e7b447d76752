"""What a later version keeps of a JSON value that an earlier one wrote."""


def kept(old: object, new: object) -> bool:
    """Whether everything in `old` stands unchanged in `new`, which may have more fields."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and kept(value, new[name]) for name, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(kept, old, new))
    return old == new
