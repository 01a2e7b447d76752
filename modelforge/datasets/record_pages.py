"""Pages of a dataset's records, and of those in which a text stands: each read in bounded time and memory."""

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
from msgspec import Struct

from trainer_entry import wire

MOST_SEARCHED_BYTES = 32 << 20
"""A page ends after the record in which so many bytes were searched (about half a second)."""
MOST_PASSED_BYTES = 512 << 20
"""What comes before a page is passed over so far at once; the next request for it goes on from there."""
_APART = 1 << 20  # bytes between two places of a file that are remembered
_MOST_FILES = 16


class RecordPage(Struct, frozen=True, kw_only=True):
    """Records one after another. `next_offset`: how many records stand before the next page; None: there is none."""

    records: tuple[wire.PreviewedRecord, ...]
    next_offset: int | None


class _Place(Struct, frozen=True, order=True):
    """Before a line of a file: how many records, lines and bytes stand before it."""

    records: int = 0
    lines: int = 0
    size: int = 0


class RecordPages:
    """Reads pages, and remembers where in each file it was: a page far down is not reached from the beginning."""

    def __init__(self) -> None:
        self._places: OrderedDict[Path, list[_Place]] = OrderedDict()
        self._lock = Lock()

    def read(self, path: Path, *, offset: int, limit: int, search: str | None = None) -> RecordPage:
        """At most `limit` records, after so many as `offset` says; with `search` those that have it in a text.

        It may stop before that, also without any record: where many bytes had to be read, or are shown. Files do not
        change: they are named by their content.
        """
        has_text = _matcher(search)
        place = self._before(path, offset)
        found: list[wire.PreviewedRecord] = []
        shown = passed = searched = 0
        with path.open("rb") as file:
            file.seek(place.size)
            for line in file:
                is_full = len(found) == limit or shown >= wire.MOST_PREVIEWED_BYTES
                is_far = passed >= MOST_PASSED_BYTES and place.records < offset
                is_record = not line.isspace()
                if is_record and (is_full or is_far or searched >= MOST_SEARCHED_BYTES):
                    self._remember(path, place, needed=is_far)
                    return RecordPage(records=tuple(found), next_offset=max(offset, place.records))
                before = place.records
                place = _Place(before + is_record, place.lines + 1, place.size + len(line))
                if not is_record:
                    continue
                if before < offset:
                    passed += len(line)
                    continue
                searched += 0 if search is None else len(line)
                if has_text(line):
                    found.append(wire.PreviewedRecord(line=place.lines, record=msgspec.Raw(line.strip())))
                    shown += len(line)
        return RecordPage(records=tuple(found), next_offset=None)

    def _before(self, path: Path, offset: int) -> _Place:
        with self._lock:
            known = self._places.get(path, [])
            at = bisect_right(known, offset, key=lambda place: place.records)
            return known[at - 1] if at else _Place()

    def _remember(self, path: Path, place: _Place, *, needed: bool) -> None:
        """Keep a place that is far enough from others, or without which the next request would come no further."""
        with self._lock:
            known = self._places.setdefault(path, [])
            self._places.move_to_end(path)
            at = bisect_right(known, place)
            beside = known[max(0, at - 1) : at + 1]
            if needed or all(abs(place.size - one.size) >= _APART for one in (_Place(), *beside)):
                insort(known, place)
            while len(self._places) > _MOST_FILES:
                self._places.popitem(last=False)


def _matcher(search: str | None) -> Callable[[bytes], bool]:
    """Whether a line's record has the text in a value, whatever its letters' case; names of fields do not count."""
    if search is None:
        return lambda _line: True
    wanted = search.casefold()
    return lambda line: any(wanted in text.casefold() for text in _texts(line))


def _texts(line: bytes) -> list[str]:
    texts: list[str] = []
    left: list[Any] = [msgspec.json.decode(line)]
    while left:
        match left.pop():
            case str() as text:
                texts.append(text)
            case dict() as fields:
                left.extend(fields.values())
            case list() as values:
                left.extend(values)
            case bool() | None:
                pass
            case number:
                texts.append(str(number))
    return texts
