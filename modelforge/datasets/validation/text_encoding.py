"""Texts that are no UTF-8: which encoding they have, as far as they show it, and how they are read."""

import codecs
import io
import re
from typing import Any, BinaryIO

from modelforge.datasets.validation.error_types import UnreadableFile

_SAMPLE = 1 << 14
_MOST_SAMPLED = 1 << 16
_PART = 1 << 20
_COMMON = ["cp1252", "cp1251", "cp932", "gb18030", "big5", "cp949", "cp1253", "cp1255", "cp1256", "koi8_r"]
"""Few letters fit many encodings: those that files have are asked for, the most common first."""
ENCODINGS = {
    "cp1252": "Windows-1252 (Latin-1)",
    "cp1251": "Windows-1251 (Cyrillic)",
    "cp932": "Shift-JIS",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
    "cp1253": "Windows-1253 (Greek)",
    "cp1255": "Windows-1255 (Hebrew)",
    "cp1256": "Windows-1256 (Arabic)",
    "koi8_r": "KOI8-R",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (little-endian)",
    "utf-16-be": "UTF-16 (big-endian)",
    "utf-32": "UTF-32",
}
"""What the encodings are called that are found, by Python's names."""
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_BAD = re.compile("[\udc80-\udcff]+")
_OTHER = re.compile("[^\x00-\x7f\udc80-\udcff]+")
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]")
_AROUND = re.compile(rb"[^\n]{0,200}[\x80-\xff][^\n]{0,200}")
_RUNS = re.compile(rb"[\x80-\xff]+")
_LETTERS = re.compile(rb"[A-Za-z]")
_ACCENTED_RUN, _ACCENTED_SHARE = 1.5, 0.4
"""In languages of the Latin alphabet letters with accents stand alone, and are the fewer."""


def encoding_by_marks(head: bytes) -> str | None:
    """The encoding that the first bytes of a text show: UTF-16 or UTF-32, with a byte order mark or by their zeros."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    for zeros, others, encoding in ((head[1::2], head[::2], "utf-16-le"), (head[::2], head[1::2], "utf-16-be")):
        if zeros.count(0) * 2 > len(zeros) and not others.count(0):
            return encoding
    return None


def guess_encoding(file: BinaryIO) -> str | None:
    """What a text is in that is no UTF-8; None where it is UTF-8, or was once and is damaged, or shows nothing."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    bad = other = overlong = 0
    sample = b""
    while part := file.read(_PART):
        text = decoder.decode(part)
        if text.isascii():
            continue
        bad += sum(map(len, _BAD.findall(text)))
        other += sum(map(len, _OTHER.findall(text)))
        overlong += len(_OVERLONG.findall(part))
        if len(sample) < _MOST_SAMPLED:
            sample += b"\n".join(_AROUND.findall(part))[:_MOST_SAMPLED]
    if not bad or other >= bad or overlong:
        return None
    return _likeliest(sample)


def _likeliest(sample: bytes) -> str | None:
    runs = _RUNS.findall(sample)
    high = sum(map(len, runs))
    if high < _ACCENTED_RUN * len(runs) and high < _ACCENTED_SHARE * (high + len(_LETTERS.findall(sample))):
        try:
            sample.decode("cp1252")
        except UnicodeDecodeError:
            return None
        return "cp1252"
    return _by_frequency(sample)


def _by_frequency(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    found = from_bytes(sample, cp_isolation=_COMMON, preemptive_behaviour=False).best()
    return found.encoding if found is not None and found.encoding in ENCODINGS else None


class _InUtf8(io.RawIOBase):
    """The bytes of a text in UTF-8, whatever it is in."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._name = ENCODINGS.get(encoding, encoding)
        self._rest = b""
        self._lines = 1
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and not self._ended:
            part = self._file.read(_PART)
            self._ended = not part
            try:
                self._rest = self._decoder.decode(part, final=self._ended).encode()
            except UnicodeDecodeError as error:
                raise UnreadableFile(self._lines, f"From here on, the text is not {self._name}: {error}.") from error
            self._lines += self._rest.count(b"\n")
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def in_utf8(file: BinaryIO, encoding: str) -> BinaryIO:
    """A file's text in UTF-8; reading what is not of its encoding raises UnreadableFile."""
    return io.BufferedReader(_InUtf8(file, encoding), _PART)


def not_utf8(data: bytes, at: int) -> str:
    """Say where the text of `data` stops being UTF-8, by the byte of its line, and what it may be."""
    place = at - (data.rfind(b"\n", 0, at) + 1) + 1
    encoding = _by_frequency(data[max(0, at - _SAMPLE // 2) : at + _SAMPLE // 2])
    looks = f" It looks like {ENCODINGS[encoding]}." if encoding is not None else ""
    return f"The line is not UTF-8 (byte {place} of it).{looks} Save the file as UTF-8."
