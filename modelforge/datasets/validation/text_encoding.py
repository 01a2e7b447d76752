"""Bytes that are no UTF-8: which encoding they have, as far as they show it."""

_SAMPLE = 1 << 14
_COMMON = ["cp1252", "cp1251", "cp932", "gb18030", "big5", "cp949", "cp1253", "cp1255", "cp1256", "koi8_r"]
"""Few letters fit many encodings: those that files have are asked for, the most common first."""
_NAMES = {
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
}


def not_utf8(data: bytes, at: int) -> str:
    """Say where the text of `data` stops being UTF-8, by the byte of its line, and what it may be."""
    from charset_normalizer import from_bytes

    place = at - (data.rfind(b"\n", 0, at) + 1) + 1
    sample = data[max(0, at - _SAMPLE // 2) : at + _SAMPLE // 2]
    found = from_bytes(sample, cp_isolation=_COMMON, preemptive_behaviour=False).best()
    looks = f" It looks like {_NAMES[found.encoding]}." if found is not None and found.encoding in _NAMES else ""
    return f"The line is not UTF-8 (byte {place} of it).{looks} Save the file as UTF-8."
