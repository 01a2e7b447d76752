"""A mapping that takes few bytes, and knows what of it the snapshot has not got yet."""

import zlib
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

_K = TypeVar("_K", str, int)
_V = TypeVar("_V")
_encode = msgspec.json.Encoder().encode
_LEVEL, _WINDOW_BITS, _MEMORY = 6, -14, 6
"""Of raw deflate: a window of 16 KiB has the dictionary and the value, and no more state than they need."""
_LOOKED_AT = 64
_SHARED = 4096
_GONE: Any = object()


class Change(Struct, frozen=True, gc=False):
    """What a snapshot has to take over. `data`: None of a key that is gone. `placed`: it has a new place, the last."""

    key: str | int
    data: bytes | None
    placed: bool


class Kept(MutableMapping[_K, _V], Generic[_K, _V]):
    """A mapping of Structs that are never changed in place.

    `packs`: a value that is not worked on is held as the bytes of its JSON, compressed with the first one's as their
    dictionary: jobs are as good as equal, so that one takes a twentieth of its JSON. What is looked at is unpacked.

    A snapshot is of one moment, and is written bit by bit while more comes: `begin` marks the moment, `changes` gives
    what differs from the snapshot before as it was then, `settle` says that it is written and `reopen` that it is not.
    """

    def __init__(self, kind: Any, *, packs: bool = False) -> None:
        self.packs = packs
        self.dictionary = b""
        self._decoder: msgspec.json.Decoder[_V] = msgspec.json.Decoder(kind)
        self._values: dict[_K, _V | bytes] = {}
        self._loose: dict[_K, None] = {}
        self._looked_at: dict[_K, _V] = {}
        self._shared: dict[bytes, _V] = {}
        self._changed: dict[_K, bool] = {}
        self._taken: dict[_K, bool] = {}
        self._before: dict[_K, _V | bytes] = {}

    def __copy__(self) -> "Kept[_K, _V]":
        """The same as it is now, to be read while this one changes."""
        twin = Kept[_K, _V](self._decoder.type, packs=self.packs)
        twin.dictionary = self.dictionary
        twin._values = self._values.copy()
        return twin

    def __getitem__(self, key: _K) -> _V:
        value = self._values[key]
        return value if not isinstance(value, bytes) else self._looked_up(key, value)

    def _looked_up(self, key: _K, value: bytes) -> _V:
        found = self._looked_at.get(key, _GONE)
        if found is _GONE:
            if len(self._looked_at) >= _LOOKED_AT:
                self._looked_at.clear()
            self._looked_at[key] = found = self._unpacked(value)
        return found  # type: ignore[no-any-return]

    def get(self, key: _K, default: Any = None) -> Any:
        """As of any mapping, without an exception for what is not there."""
        value = self._values.get(key, _GONE)
        if value is _GONE:
            return default
        return value if not isinstance(value, bytes) else self._looked_up(key, value)

    def __setitem__(self, key: _K, value: _V) -> None:
        before = self._values.get(key, _GONE)
        if before is value:
            return
        if self._taken:
            self._note(key)
        if before is _GONE:
            self._changed.pop(key, None)
            self._changed[key] = True
        elif key not in self._changed:
            self._changed[key] = False
        self._values[key] = value
        if self.packs and (before is _GONE or isinstance(before, bytes)):  # else it is loose, and was not looked up
            self._loose[key] = None
            self._looked_at.pop(key, None)

    def __delitem__(self, key: _K) -> None:
        if key not in self._values:
            raise KeyError(key)
        self._note(key)
        self._changed[key] = True
        del self._values[key]
        self._loose.pop(key, None)
        self._looked_at.pop(key, None)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[_K]:
        return iter(self._values)

    def __reversed__(self) -> Iterator[_K]:
        return reversed(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> ValuesView[_V]:
        """Its values; where none is packed, as quickly as those of a dictionary."""
        return super().values() if self.packs else self._values.values()  # type: ignore[return-value] # none is bytes

    def items(self) -> ItemsView[_K, _V]:
        """Its keys and values, in the same way."""
        return super().items() if self.packs else self._values.items()  # type: ignore[return-value] # none is bytes

    def pack(self) -> None:
        """Make bytes of every value that is an object."""
        for key in self._loose:
            value = self._values[key]
            if not isinstance(value, bytes):
                self._values[key] = self._packed(value)
        self._loose.clear()

    def restore(self, key: _K, data: bytes) -> None:
        """Put in what a snapshot has of a key; values that are equal are one object."""
        if self.packs:
            self._values[key] = data
            return
        found = self._shared.get(data, _GONE)
        if found is _GONE:
            if len(self._shared) >= _SHARED:
                self._shared.clear()
            self._shared[data] = found = self._decoder.decode(data)
        self._values[key] = found

    def begin(self) -> None:
        """From now on `changes` are those up to this moment."""
        self._taken, self._changed = self._changed, {}

    def changes(self) -> Iterator[Change]:
        """What a snapshot of that moment has to take over, in the order of the keys; more may come in between two."""
        for key, placed in self._taken.items():
            value = self._before[key] if key in self._before else self._values.get(key, _GONE)
            if value is _GONE:
                yield Change(key, None, placed)
                continue
            data = value if isinstance(value, bytes) else self._packed(value) if self.packs else _encode(value)
            if self.packs and self._values.get(key) is value:
                self._values[key] = data
                self._loose.pop(key, None)
            yield Change(key, data, placed)

    def settle(self) -> None:
        """The snapshot has them."""
        self._taken, self._before = {}, {}

    def reopen(self) -> None:
        """It has not: the next one takes them over too."""
        both = self._taken
        for key, placed in self._changed.items():
            if placed:
                both.pop(key, None)
            both[key] = placed or both.get(key, False)
        self._changed = both
        self._taken, self._before = {}, {}

    def forget(self) -> None:
        """No snapshot has anything of it."""
        self._changed = dict.fromkeys(self._values, True)

    def _note(self, key: _K) -> None:
        """Keep what a snapshot that is being written has yet to take over."""
        if key in self._taken and key not in self._before:
            self._before[key] = self._values.get(key, _GONE)

    def _packed(self, value: _V) -> bytes:
        data = _encode(value)
        if not self.dictionary:
            self.dictionary = data
        packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY, zdict=self.dictionary)
        return packer.compress(data) + packer.flush()

    def _unpacked(self, data: bytes) -> _V:
        return self._decoder.decode(zlib.decompressobj(_WINDOW_BITS, zdict=self.dictionary).decompress(data))
