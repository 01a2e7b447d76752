"""A ZIP archive of one file is read as that file; any other is refused with what is in it."""

import gzip
import io
import json
import sys
import zipfile
from collections.abc import Callable

import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from support.checked import checked

from modelforge.datasets.validation import packed_files
from modelforge.datasets.validation.packed_files import most_unpacked

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b'{"input": "a", "output": "b"}\n' * 3


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def refusal(content: bytes, limit: int = 1 << 30) -> str:
    found, _ = checked(content, "data.zip", limit=limit)
    (error,) = found.report.errors
    assert (found.report.valid, error.line) == (False, 1)
    return error.message


@pytest.mark.parametrize(
    ("name", "content", "container"),
    [
        ("data.jsonl", LINES, "jsonl"),
        ("folder/data.csv", b"input,output\na,b\na,b\na,b\n", "csv"),
        ("DATA.TSV", b"input\toutput\na\tb\na\tb\na\tb\n", "csv"),
        ("data.json", json.dumps([{"input": "a", "output": "b"}] * 3).encode(), "json"),
        ("data", LINES.decode().encode("utf-16"), "jsonl"),
    ],
)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_of_one_file_is_read_as_that_file(name: str, content: bytes, container: str, method: int) -> None:
    beside = {"folder/": b"", "__MACOSX/folder/._data.csv": b"x", ".DS_Store": b"x", "folder/.hidden": b"x"}
    found, records = checked(zipped({**beside, name: content}, method), "archive.csv.zip")
    assert (found.report.errors, found.container, found.compression) == ((), container, "zip")
    assert [json.loads(line) for line in records.splitlines()] == [{"input": "a", "output": "b"}] * 3


def test_an_archive_of_anything_else_is_refused_with_what_is_in_it() -> None:
    table = io.BytesIO()
    parquet.write_table(pa.table({"input": ["a"], "output": ["b"]}), table)
    for files, says in (
        ({"a.jsonl": LINES, "b.jsonl": LINES}, "The ZIP archive holds 2 files: 'a.jsonl', 'b.jsonl'; send"),
        ({f"{at}.jsonl": LINES for at in range(30)}, "The ZIP archive holds 30 files: '0.jsonl', '1.jsonl'"),
        ({}, "The ZIP archive holds no file; send"),
        ({".DS_Store": b"x", "a/": b""}, "The ZIP archive holds no file; send"),
        ({"a.zip": zipped({"a.jsonl": LINES})}, "In the zip file is one that is compressed again"),
        ({"a.jsonl.gz": gzip.compress(LINES)}, "In the zip file is one that is compressed again"),
        ({"a.jsonl.bz2": b"BZh91AY"}, "The file is compressed with bzip2"),
        ({"a.parquet": table.getvalue()}, "A Parquet file is compressed in itself"),
        ({"[Content_Types].xml": b"", "xl/workbook.xml": b""}, "The file is a workbook of Excel"),
    ):
        assert refusal(zipped(files)).startswith(says)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "in an unusual way" in refusal(zipped({"a.jsonl": LINES}, method))


def test_an_archive_that_is_encrypted_or_damaged_is_refused() -> None:
    content = zipped({"a.jsonl": LINES * 1000})
    encrypted = bytearray(content)
    encrypted[content.index(b"PK\x01\x02") + 8] |= 1
    assert "is encrypted in the ZIP archive" in refusal(bytes(encrypted))
    assert "damaged or cut off" in refusal(content[:-30])
    assert "damaged or cut off" in refusal(b"PK\x03\x04")
    damaged = bytearray(content)
    damaged[60] ^= 0xFF
    assert "damaged or cut off" in refusal(bytes(damaged))
    wrong_sum = content.replace(content[14:18], b"\0\0\0\0")
    found, _ = checked(wrong_sum, "data.zip")
    assert "Bad CRC-32" in found.report.errors[0].message


def test_an_archive_of_more_than_is_allowed_is_refused_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found, records = checked(zipped({"a.jsonl": LINES * 1_000_000}), "data.zip", limit=1 << 20)
    assert "larger than 1048576 bytes" in found.report.errors[0].message
    assert len(records) <= 1 << 20
    monkeypatch.setattr(packed_files, "_LONGEST_LISTING", 1000)
    assert "holds too many files" in refusal(zipped({f"{at}.jsonl": b"" for at in range(100)}))


@given(at=st.integers(0, 300), byte=st.integers(0, 255))
def test_a_byte_that_changed_changes_no_record_unsaid(at: int, byte: int) -> None:
    content = bytearray(zipped({"a.jsonl": b"".join(b'{"input": "%d", "output": "b"}\n' % at for at in range(99))}))
    before = checked(bytes(content), "a.zip")
    content[at % len(content)] = byte
    found, records = checked(bytes(content), "a.zip")
    assert not found.report.valid or records == before[1]


def a_bomb_of_gzip() -> bytes:
    return gzip.compress(LINES * (150_000_000 // len(LINES)))


def a_bomb_of_zip() -> bytes:
    return zipped({"a.jsonl": LINES * (150_000_000 // len(LINES))})


def a_bomb_of_zstd() -> bytes:
    return zstd.compress(LINES * (150_000_000 // len(LINES)))


def a_bomb_of_parquet() -> bytes:
    """A text that stands there once, and is meant by every row."""
    out = io.BytesIO()
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), ["a" * 1_000_000])
    parquet.write_table(pa.table({"input": text, "output": text}), out, compression="zstd")
    return out.getvalue()


@pytest.mark.parametrize(
    ("bomb", "name"),
    [
        (a_bomb_of_gzip, "data.jsonl.gz"),
        (a_bomb_of_zip, "data.zip"),
        (a_bomb_of_zstd, "data.jsonl.zst"),
        (a_bomb_of_parquet, "data.parquet"),
    ],
)
def test_what_becomes_many_times_its_size_is_refused(bomb: Callable[[], bytes], name: str) -> None:
    content = bomb()
    found, records = checked(content, name, limit=20_000_000_000)
    assert not found.report.valid
    message = found.report.errors[0].message
    assert f"larger than 100000000 bytes, which are accepted of a file of {len(content)} bytes" in message
    assert len(content) < 1_000_000
    assert len(records) <= 100_000_000


def test_a_small_file_of_texts_that_repeat_themselves_is_taken() -> None:
    content = gzip.compress(LINES * (5_000_000 // len(LINES)))
    found, _ = checked(content, "data.jsonl.gz", limit=20_000_000_000)
    assert found.report.valid
    assert len(content) * 100 < 5_000_000


@pytest.mark.parametrize(
    ("size", "limit", "most"), [(513, 10**10, 10**8), (2 * 10**6, 10**10, 2 * 10**8), (10**9, 10**10, 10**10)]
)
def test_how_much_a_file_may_become(size: int, limit: int, most: int) -> None:
    assert most_unpacked(size, limit) == most
