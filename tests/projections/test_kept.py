"""A mapping in few bytes is a mapping, and what it says has changed is what has."""

from copy import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from modelforge.projections import kept
from modelforge.projections.kept import Kept


class Thing(Struct, frozen=True):
    name: str
    words: list[str] = []


KEYS = st.sampled_from("abcde")
acts = st.lists(
    st.tuples(
        st.sampled_from(["set", "delete", "pack", "look", "copy", "begin", "settle", "reopen"]), KEYS, st.integers(0, 9)
    ),
    max_size=60,
)


class File:
    """What a snapshot's file has: rows in the order in which they came."""

    def __init__(self) -> None:
        self.rows: dict[str | int, bytes] = {}

    def take(self, mapping: Kept[str, Thing]) -> None:
        for change in mapping.changes():
            if change.placed or change.data is None:
                self.rows.pop(change.key, None)
            if change.data is not None:
                self.rows[change.key] = change.data


@given(acts=acts, packs=st.booleans())
def test_whatever_is_done_it_is_a_dictionary_and_snapshots_have_it_as_it_was_at_their_beginning(
    acts: list[tuple[str, str, int]], *, packs: bool
) -> None:
    mapping, plain, file = Kept[str, Thing](Thing, packs=packs), dict[str, Thing](), File()
    at_begin: dict[str, Thing] | None = None
    twin, at_twin = copy(mapping), dict(plain)
    for act, key, number in [*acts, ("settle", "a", 0), ("begin", "a", 0), ("settle", "a", 0)]:
        if act == "set":
            mapping[key] = plain[key] = Thing(f"thing {number}", ["word"] * number)
        elif act == "delete" and key in plain:
            del mapping[key], plain[key]
        elif act == "pack":
            mapping.pack()
        elif act == "copy":
            twin, at_twin = copy(mapping), dict(plain)
        elif act == "look":
            assert mapping.get(key) == plain.get(key)
        elif act == "begin" and at_begin is None:
            mapping.begin()
            at_begin = dict(plain)
        elif act == "reopen" and at_begin is not None:
            mapping.reopen()
            at_begin = None
        elif act == "settle" and at_begin is not None:
            file.take(mapping)
            mapping.settle()
            again = Kept[str, Thing](Thing, packs=packs)
            again.dictionary = mapping.dictionary
            for name, data in file.rows.items():
                again.restore(str(name), data)
            assert [*again.items()] == [*at_begin.items()]
            at_begin = None
        assert [*mapping.items()] == [*plain.items()]
        assert [*twin.items()] == [*at_twin.items()]
        assert [*reversed(mapping)] == [*reversed(plain)]
        assert (len(mapping), key in mapping) == (len(plain), key in plain)


def test_what_is_packed_is_small_and_what_is_looked_at_again_is_the_same_object() -> None:
    mapping = Kept[int, Thing](Thing, packs=True)
    for number in range(200):
        mapping[number] = Thing(f"thing {number}", [f"word {one}" for one in range(100)])
    mapping.pack()
    values: dict[int, Any] = mapping._values  # noqa: SLF001 - how it is held is what is tested
    assert all(isinstance(value, bytes) and len(value) < 60 for value in values.values())
    assert mapping[7] is mapping[7]
    assert [mapping[number].name for number in range(200)] == [f"thing {number}" for number in range(200)]
    assert len(mapping._looked_at) <= kept._LOOKED_AT  # noqa: SLF001


def test_what_is_not_there_is_not_there() -> None:
    mapping = Kept[str, Thing](Thing)
    with pytest.raises(KeyError):
        mapping["a"]
    with pytest.raises(KeyError):
        del mapping["a"]
    assert "a" not in mapping
