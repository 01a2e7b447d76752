"""Texts that are no UTF-8: which encoding they have, as far as they show it, and how they are read."""

import codecs
import io
import re
from typing import Any, BinaryIO

from modelforge.datasets.validation.error_types import UnreadableFile
from modelforge.datasets.validation.likely_encoding import likely_encoding

_SAMPLE = 1 << 14
_MOST_SAMPLED = 1 << 16
_PART = 1 << 20
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
    "cp1250": "Windows-1250 (Central European)",
    "cp1254": "Windows-1254 (Turkish)",
    "iso8859_2": "ISO 8859-2",
    "euc_jp": "EUC-JP",
    "mac_roman": "Mac OS Roman",
    "cp850": "DOS code page 850",
    "utf-16": "UTF-16",
    "utf-16-le": "UTF-16 (little-endian)",
    "utf-16-be": "UTF-16 (big-endian)",
    "utf-32": "UTF-32",
    "utf-32-le": "UTF-32 (little-endian)",
    "utf-32-be": "UTF-32 (big-endian)",
}
"""What the encodings are called that are found, by Python's names."""
_NO_TEXTS = frozenset({"idna", "punycode", "raw-unicode-escape", "raw_unicode_escape", "undefined"})
_NO_TEXTS |= {"unicode-escape", "unicode_escape"}
"""What Python calls an encoding, and no file is in."""
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_BAD = re.compile("[\udc80-\udcff]+")
_OTHER = re.compile("[^\x00-\x7f\udc80-\udcff]+")
_THREE_BYTES = "\u0800"
_OVERLONG = re.compile(rb"[\xc0\xc1][\x80-\xbf]")
_AROUND = re.compile(rb"[^\n]{0,200}[\x80-\xff][^\n]{0,200}")
_ZEROS_SHARE = 20
"""Of the letters of JSON and of tables, more than one of so many is ASCII, whatever the language."""


def encoding_by_marks(head: bytes) -> str | None:
    """The encoding that the first bytes of a text show: UTF-16 or UTF-32, with a byte order mark or by their zeros."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    zeros = [head[place::4].count(0) * 4 for place in range(4)]
    size = len(head) - 3
    if size > 0 and zeros[0] < size <= min(zeros[2], zeros[3]):
        return "utf-32-le"
    if size > 0 and zeros[3] < size <= min(zeros[0], zeros[1]):
        return "utf-32-be"
    first, second = zeros[0] + zeros[2], zeros[1] + zeros[3]
    if second * _ZEROS_SHARE > 2 * size > 0 and second > 2 * first:
        return "utf-16-le"
    if first * _ZEROS_SHARE > 2 * size > 0 and first > 2 * second:
        return "utf-16-be"
    return None


def encoding_named(name: str) -> str:
    """Python's name of an encoding by any of its names, as windows-1252, cp1252 or Latin1.

    Raises:
        LookupError: there is none, or it is none of texts.
    """
    try:
        found = codecs.lookup(name)
    except (ValueError, ImportError) as error:
        raise LookupError(name) from error
    if found.name in _NO_TEXTS or not getattr(found, "_is_text_encoding", True):
        raise LookupError(name)
    return found.name


def guess_encoding(file: BinaryIO) -> str | None:
    """What a text is in that is no UTF-8; None where it is UTF-8, or was once and is damaged, or shows nothing."""
    found = _Bytes()
    sample = b""
    while part := file.read(_PART):
        if not found.take(part):
            continue
        if len(sample) < _MOST_SAMPLED:
            sample += b"\n".join(_AROUND.findall(part))[:_MOST_SAMPLED]
    return likely_encoding(sample) if found.are_no_utf8 else None


class _Bytes:
    """How many bytes of a text are of UTF-8, beyond ASCII, and how many are not."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._bad = self._other = self._overlong = 0

    def take(self, part: bytes) -> bool:
        """Count a part; whether it has some beyond ASCII."""
        text = self._decoder.decode(part)
        if text.isascii():
            return False
        self._bad += sum(map(len, _BAD.findall(text)))
        letters = "".join(_OTHER.findall(text))
        longer = sum(letter >= _THREE_BYTES for letter in letters)
        self._other += len(letters) + 2 * longer  # two bytes that are a letter are so by chance, now and then
        self._overlong += sum(map(len, _OVERLONG.findall(part)))
        return True

    @property
    def are_no_utf8(self) -> bool:
        """Whether they are in another encoding, and not in UTF-8 that was damaged."""
        return self._bad > self._other and self._overlong < self._bad


def head_in_utf8(head: bytes, encoding: str) -> bytes:
    """The first bytes of a text in UTF-8, without what is wrong in them.

    Raises:
        UnreadableFile: no text of the encoding begins so.
    """
    try:
        return codecs.getincrementaldecoder(encoding)("ignore").decode(head).encode(errors="ignore")
    except UnicodeError as error:  # of UTF-16 and UTF-32, whose order is not known without a mark
        name = ENCODINGS.get(encoding, encoding)
        raise UnreadableFile(
            1,
            f"The text is not {name}, or has no byte order mark. Send the encoding that it is in; without a mark, "
            f"{name} is {encoding}-le or {encoding}-be.",
        ) from error


class _InUtf8(io.RawIOBase):
    """The bytes of a text in UTF-8, whatever it is in."""

    def __init__(self, file: BinaryIO, encoding: str) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._encoding = encoding
        self._message = f"From here on, the text is not {ENCODINGS.get(encoding, encoding)}"
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
            except UnicodeError as error:
                raise UnreadableFile(self._lines + self._lines_before(error), f"{self._message}: {error}.") from error
            self._lines += self._rest.count(b"\n")
        data, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)

    def _lines_before(self, error: UnicodeError) -> int:
        """How many lines end in the same part before what cannot be read."""
        match error:
            case UnicodeDecodeError(object=bytes(data), start=start):
                return data[:start].decode(self._encoding, "ignore").count("\n")
            case UnicodeEncodeError(object=str(text), start=start):
                return text.count("\n", 0, start)
            case _:
                return 0


def in_utf8(file: BinaryIO, encoding: str) -> BinaryIO:
    """A file's text in UTF-8; reading what is not of its encoding raises UnreadableFile."""
    return io.BufferedReader(_InUtf8(file, encoding), _PART)


def not_utf8(data: bytes, at: int) -> str:
    """Say where the text of `data` stops being UTF-8, by the byte of its line, and what it may be."""
    place = at - (data.rfind(b"\n", 0, at) + 1) + 1
    sample, found = data[max(0, at - _SAMPLE // 2) : at + _SAMPLE // 2], _Bytes()
    found.take(sample)
    encoding = likely_encoding(sample) if found.are_no_utf8 else None
    looks = f" It looks like {ENCODINGS[encoding]}." if encoding is not None else ""
    return f"The line is not UTF-8 (byte {place} of it).{looks} Save the file as UTF-8, or send its encoding."
