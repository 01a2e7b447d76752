"""In which encoding of before a text makes the likeliest words.

A text is decoded in each of the usual encodings, and costs bits: few where its letters are frequent in a language that
is written so and stand as letters stand in words, many where they are symbols or scripts and cases are mixed.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise

from modelforge.datasets.validation import letter_ranks as ranks

_WORDS = re.compile(rb"[^\x00-\x40]*[\x80-\xff][^\x00-\x3f]*")
_ESCAPES = re.compile(rb'(?<![\x80-\xff])\\(?:u[0-9a-fA-F]{4}|[nrtbf"/\\])')
_MOST_WORDS = 1 << 12  # bytes of different words
_CUT_OFF = re.compile(rb"\xe2\x80|\xf0\x9f|\xef\xbf")
"""What UTF-8 has often, and texts in other encodings hardly ever."""
_AMONG_LETTERS = re.compile(r"(?<=[A-Za-z])[^\x00-\x7f](?=[A-Za-z])")
_HIGH = re.compile(rb"[\x80-\xff]")
_TYPOGRAPHIC = frozenset("“”‘’–—…€£«»„‚•°§·\u00a0")
_USUAL_SIGNS = frozenset("©®™ºª²³½¼¾×±¿¡№")
_OPENING = frozenset("“‘«„‚¿¡")
_WITHIN_WORDS = frozenset("’‘·\u00ad")
_MOST_BITS = 7.5
"""A text that costs more for each byte beyond ASCII is in none of the encodings."""
_STRANGE, _SIGN, _USUAL_SIGN, _RARE_LETTER, _LOST = 10.0, 3.5, 6.5, 9.0, 13.0
_CAPITAL, _CAPITAL_FIRST, _CAPITAL_WITHIN, _SCRIPTS_MIXED = 0.25, 1.0, 8.0, 8.0
_SIGN_BESIDE, _ACCENTS_TOGETHER, _LAST, _AFTER_LAST = 3.0, 1.5, "ςםןךףץ", 6.0

_Costs = Mapping[str, float]
_WESTERN = [("accents", letters, 0.0) for letters in ranks.WESTERN.values()] + [("accents", ranks.ICELANDIC, 5.0)]
_CENTRAL = [("accents", letters, 0.0) for letters in ranks.CENTRAL.values()]
_ONE_BYTE: dict[str, tuple[float, list[tuple[str, str, float]]]] = {
    "cp1252": (0.0, _WESTERN),
    "cp1251": (2.0, [("all", ranks.RUSSIAN, 0.0), ("all", ranks.UKRAINIAN, 1.0)]),
    "cp1250": (2.5, _CENTRAL),
    "cp1253": (2.5, [("all", ranks.GREEK, 0.0)]),
    "cp1254": (2.25, [("accents", ranks.TURKISH, 0.0)]),
    "cp1255": (4.0, [("all", ranks.HEBREW, 0.0)]),
    "cp1256": (3.0, [("all", ranks.ARABIC, 0.0)]),
    "koi8_r": (3.0, [("all", ranks.RUSSIAN, 0.0)]),
    "iso8859_2": (4.0, _CENTRAL),
    "mac_roman": (6.0, _WESTERN),
    "cp850": (6.0, _WESTERN),
}
"""What each costs in itself, and its languages: of which kind, their letters by rank, and what each costs itself."""


def likely_encoding(sample: bytes) -> str | None:
    """The encoding in which some of a text is likeliest, by Python's name; None where it is likely in none."""
    words: dict[bytes, None] = {}
    size = 0
    for word in _WORDS.findall(_ESCAPES.sub(b" ", sample)):
        if word not in words:
            words[word] = None
            size += len(word)
        if size > _MOST_WORDS:
            break
    text = b" ".join(words)
    high = len(_HIGH.findall(text))
    if len(_CUT_OFF.findall(text)) * 10 >= max(1, len(words)):
        return None
    costs = {encoding: cost(text) for encoding, cost in _COSTS.items()}
    best = min(costs, key=lambda encoding: costs[encoding])
    return best if costs[best] <= _MOST_BITS * high + _PRIORS[best] else None


def _cost_of_letters(encoding: str) -> Callable[[bytes], float]:
    prior, languages = _ONE_BYTE[encoding]

    def cost(text: bytes) -> float:
        decoded = f" {text.decode(encoding, 'replace')} "
        letters = [letter for letter in decoded if not letter.isascii()]
        of_language = min(
            own + sum(map(_costs_of(kind, ranked).__getitem__, letters)) for kind, ranked, own in languages
        )
        return prior + of_language + _cost_of_places(decoded)

    return cost


class _Letters(dict[str, float]):
    """What letters cost in a language; those that it does not have as what they are."""

    def __missing__(self, letter: str) -> float:
        self[letter] = found = self._other(letter)
        return found

    def _other(self, letter: str) -> float:
        if letter == "\ufffd":
            return _LOST
        if letter in _TYPOGRAPHIC:
            return _SIGN
        if letter in _USUAL_SIGNS:
            return _USUAL_SIGN
        lower = letter.lower()
        if lower != letter and lower in self:
            return self[lower] + _CAPITAL
        return _RARE_LETTER if letter.isalpha() else _STRANGE


@cache
def _costs_of(kind: str, ranked: str) -> _Letters:
    first, step = (1.5, 0.4) if kind == "accents" else (2.5, 0.15)
    if ranked == ranks.WESTERN["of all"]:
        first, step = 3.5, 0.2
    return _Letters({letter: first + step * rank for rank, letter in enumerate(ranked)})


def _cost_of_places(text: str) -> float:
    """What is odd in how letters and signs follow each other."""
    cost, earlier = 0.0, " "
    for before, letter in pairwise(text):
        if not (before.isascii() and letter.isascii()):
            cost += _cost_of_two(earlier, before, letter)
        earlier = before
    return cost


def _cost_of_two(earlier: str, before: str, letter: str) -> float:
    if before.isalpha() and letter.isalpha():
        cost = _AFTER_LAST if before in _LAST else 0.0
        if _script(before) != _script(letter):
            return cost + _SCRIPTS_MIXED
        if before.islower() and letter.isupper():
            return cost + _CAPITAL_WITHIN
        if earlier.isalpha() and before.isupper() and letter.islower():
            return cost + _CAPITAL_WITHIN / 2
        return cost + (_script(letter) == 0 and not before.isascii() and not letter.isascii()) * _ACCENTS_TOGETHER
    if before.isalpha() and not letter.isascii():
        return 0.0 if letter in _TYPOGRAPHIC - _OPENING else _SIGN_BESIDE * (1 + (letter in _OPENING))
    if letter.isalpha():
        beside = not before.isascii() and before not in _OPENING | _WITHIN_WORDS
        return beside * _SIGN_BESIDE + letter.isupper() * _CAPITAL_FIRST
    return 0.0


def _script(letter: str) -> int:
    """0 for Latin letters, and the part of Unicode for others."""
    code = ord(letter)
    return 0 if code < 0x250 else (0x400 if code < 0x530 else code & ~0xFF) if code >= 0x400 else 0x370  # noqa: PLR2004


_Ranges = tuple[tuple[int, int, float], ...]
_PAIRS: dict[str, tuple[float, str, _Ranges]] = {
    "cp932": (
        2.0,
        ranks.KANJI,
        (
            (0x8140, 0x81FC, 5),
            (0x824F, 0x829A, 6),
            (0x829F, 0x82F1, 4),
            (0x8340, 0x8396, 5),
            (0x889F, 0x9872, 9),
            (0x989F, 0xEAA4, 14),
        ),
    ),
    "euc_jp": (
        4.0,
        ranks.KANJI,
        (
            (0xA1A1, 0xA1FE, 5),
            (0xA3B0, 0xA3FA, 6),
            (0xA4A1, 0xA4F3, 4),
            (0xA5A1, 0xA5F6, 5),
            (0xB0A1, 0xCFD3, 9),
            (0xD0A1, 0xF4A6, 14),
        ),
    ),
    "gb18030": (2.0, ranks.SIMPLIFIED, ((0xA1A1, 0xA1BF, 5), (0xA3A1, 0xA3FE, 5), (0xB0A1, 0xD7F9, 9))),
    "big5": (3.0, ranks.TRADITIONAL, ((0xA140, 0xA1B0, 5), (0xA440, 0xC67E, 9))),
    "cp949": (3.0, ranks.KOREAN, ((0xA1A1, 0xA1FE, 7), (0xB0A1, 0xC8FE, 9))),
}
"""What each costs in itself, its frequent characters, and what the characters between two codes cost."""
_FREQUENT, _FREQUENT_TO, _RARE_PAIR, _HALF_WIDTH, _AMONG = 4.5, 0.012, 15.0, 10.0, 6.0


def _cost_of_pairs(encoding: str) -> Callable[[bytes], float]:
    prior, frequent, ranges = _PAIRS[encoding]
    costs: dict[str, float] = {}
    for rank, character in enumerate(frequent):
        costs.setdefault(character, min(8.0, _FREQUENT + _FREQUENT_TO * rank))

    def cost(text: bytes) -> float:
        decoded = text.decode(encoding, "replace")
        total = prior + _AMONG * len(_AMONG_LETTERS.findall(decoded))
        for character in decoded:
            if character.isascii():
                continue
            if character not in costs:
                costs[character] = _cost_of_code(character, encoding, ranges)
            total += costs[character]
        return total

    return cost


def _cost_of_code(character: str, encoding: str, ranges: _Ranges) -> float:
    try:
        code = character.encode(encoding)
    except UnicodeEncodeError:
        return _LOST
    if len(code) == 1:
        return _HALF_WIDTH
    if len(code) > 2:  # noqa: PLR2004
        return 2 * _RARE_PAIR
    number = int.from_bytes(code, "big")
    for first, last, cost in ranges:
        if first <= number <= last:
            rare_trail = encoding in {"gb18030", "cp949"} and code[1] <= 0xA0  # noqa: PLR2004
            return _RARE_PAIR if rare_trail else cost
    return _RARE_PAIR


_COSTS = {encoding: _cost_of_letters(encoding) for encoding in _ONE_BYTE} | {
    encoding: _cost_of_pairs(encoding) for encoding in _PAIRS
}
_PRIORS = {encoding: prior for encoding, (prior, _) in _ONE_BYTE.items()} | {
    encoding: prior for encoding, (prior, _, _) in _PAIRS.items()
}
