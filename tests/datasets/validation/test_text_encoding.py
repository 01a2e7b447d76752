"""An encoding that is said is the one in which a file is read."""

import contextlib
import encodings.aliases
import gzip
import io
import pkgutil
import random
import tempfile
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet
from support.checked import checked

from modelforge.datasets.validation.columns import Columns
from modelforge.datasets.validation.error_types import UnreadableFile
from modelforge.datasets.validation.file_formats import detect_file_format, rows_of
from modelforge.datasets.validation.file_notes import FileNotes
from modelforge.datasets.validation.process import check_encoding_given
from modelforge.datasets.validation.text_encoding import encoding_named
from modelforge.errors import BadInput

LINES = '{"input": "Café", "output": "é"}\n{"input": "ïß", "output": "ü"}\n'


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("windows-1252", "cp1252"),
        ("Latin-1", "iso8859-1"),
        ("UTF8", "utf-8"),
        ("utf_16", "utf-16"),
        ("Shift_JIS", "shift_jis"),
        ("euc-kr", "euc_kr"),
        ("GBK", "gbk"),
    ],
)
def test_an_encoding_has_many_names(name: str, encoding: str) -> None:
    assert check_encoding_given(name) == encoding


@pytest.mark.parametrize(
    "name",
    [
        *("base64", "rot13", "zip", "idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"),
        *("", "klingon", "a\0b", "é", "x" * 100, "aliases", "../utf_8", "mbcs"),
    ],
)
def test_a_name_of_no_encoding_of_texts_is_refused(name: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_encoding_given(name)
    assert refused.value.field == "encoding"


@pytest.mark.parametrize(
    "encoding", ["cp1252", "iso8859-1", "cp850", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-7"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_as_it_was_said(encoding: str, packed: bool) -> None:  # noqa: FBT001 - parametrized
    content = LINES.encode(encoding)
    found, records = checked(gzip.compress(content) if packed else content, encoding=encoding)
    assert found.report.errors == ()
    assert [warning for warning in found.report.warnings if "byte order" not in warning.message] == []
    assert records.decode() == LINES


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_a_mark_is_no_letter(encoding: str) -> None:
    found, records = checked(("\ufeff" + LINES).encode("utf-16-be"), encoding="utf-16")
    assert (found.report.errors, records.decode()) == ((), LINES)
    found, records = checked(LINES.encode("utf-16-be"), encoding="utf-16")
    assert (found.report.errors, records.decode()) == ((), LINES)
    found, records = checked(("\ufeff" + LINES).encode(encoding), encoding=encoding)
    assert (found.report.errors, records.decode()) == ((), LINES)


@pytest.mark.parametrize(
    ("content", "encoding", "line"),
    [
        (LINES.encode(), "ascii", 1),
        (b'{"input": "a", "output": "b"}\n' * 2 + b'{"input": "\x81", "output": "b"}\n', "cp1252", 3),
        (b'{"input": "a", "output": "b"}\n' * 2 + '{"input": "é", "output": "b"}\n'.encode("cp1252"), "utf-8", 3),
        (LINES.encode("cp1252"), "utf-8", 1),
        (LINES.encode("utf-16"), "utf-8", 1),
        (LINES.encode("cp1252"), "shift_jis", 1),
        (b'{"input": "a", "output": "b"}\n{"input": "+2AA-", "output": "b"}\n', "utf-7", 2),
        (LINES.encode(), "utf-16", 1),
        (LINES.encode("cp1252"), "utf-32", 1),
        (LINES.encode("utf-16"), "utf-32", 1),
        ("input,output\n漢,字\n".encode(), "utf-16", 1),
    ],
)
def test_what_is_not_in_it_is_an_error_of_its_line(content: bytes, encoding: str, line: int) -> None:
    found, _ = checked(content, encoding=encoding)
    assert not found.report.valid
    assert found.report.errors[0].line == line
    assert "not" in found.report.errors[0].message


def test_no_encoding_is_read_of_texts_in_others_but_with_an_error_of_the_file() -> None:
    names = {*encodings.aliases.aliases, *(module.name for module in pkgutil.iter_modules(encodings.__path__))}
    known: set[str] = set()
    for name in names:
        with contextlib.suppress(LookupError):
            known.add(encoding_named(name))
    assert known >= {"ascii", "cp1252", "utf-16", "utf-32", "utf-7", "hz", "iso2022_kr"}
    noise = random.Random(1)  # noqa: S311 - no secret
    texts = [b"", b"a", b"input,output\na,b\n", *map(noise.randbytes, (1, 2, 3, 300))]
    for text in [*texts, *(b"\xff\xfe" + text for text in texts)]:
        for encoding in sorted(known):
            with tempfile.NamedTemporaryFile() as file, contextlib.suppress(UnreadableFile):
                path = Path(file.name)
                path.write_bytes(text)
                kind = detect_file_format(path, "a.csv", 1 << 20, Columns(), encoding)
                for _ in rows_of(path, kind, 1 << 20, Columns(every=True), FileNotes()):
                    pass


def test_a_parquet_file_has_no_encoding() -> None:
    out = io.BytesIO()
    parquet.write_table(pa.table({"input": ["a"], "output": ["b"]}), out)
    found, _ = checked(out.getvalue(), "a.parquet", encoding="cp1252")
    assert "send it without encoding" in found.report.errors[0].message
