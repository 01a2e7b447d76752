"""Digests of both versions: a record that once had one has it for ever, or nobody's log would be whole any more.

A line that is there is never changed: it stands for what lies in somebody's log.
"""

import hashlib
import json
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from modelforge.domain.messages import Kind, digest_of, first_digest_of
from modelforge.event_log.packing import TYPICAL_SHA256, packed, unpacked

FILE = Path(__file__).with_name("digests.jsonl")


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """A record's columns, the digest before it, and its own. `data`: the very text of it."""

    digest_version: int
    previous: str
    position: int
    stream: str
    version: int
    kind: Kind
    type: str
    at: int
    cause: int | None
    actor: str
    data: str
    digest: str


LINES = msgspec.json.Decoder(Line).decode_lines(FILE.read_bytes())


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"version {line.digest_version} at {line.position}")
def test_a_record_has_the_digest_that_it_had(line: Line) -> None:
    digest = {1: first_digest_of, 2: digest_of}[line.digest_version](
        line.previous,
        line.position,
        line.stream,
        line.version,
        line.kind,
        line.type,
        line.at,
        line.cause,
        line.actor,
        line.data.encode(),
    )
    assert digest == line.digest


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"version {line.digest_version} at {line.position}")
def test_the_standard_library_comes_to_the_same_digest(line: Line) -> None:
    columns = [line.position, line.stream, line.version, line.kind, line.type, line.at, line.cause, line.actor]
    data = line.data if line.digest_version == 1 else f'"{hashlib.sha256(line.data.encode()).hexdigest()}"'
    array = f"{json.dumps(columns, ensure_ascii=False, separators=(',', ':'))[:-1]},{data}]"
    assert hashlib.sha256(f"{line.previous}{array}".encode()).hexdigest() == line.digest


def test_there_are_digests_of_both_versions() -> None:
    assert {line.digest_version for line in LINES} == {1, 2}


def test_what_was_once_packed_is_unpacked() -> None:
    assert TYPICAL_SHA256 == "72a3766622a423da37fd75c80fa6eede0de53fa4c716e69aacc4479fb73aa29a"
    data = b'{"type":"MetricsLogged","steps":[' + b",".join(b'{"step":%d}' % step for step in range(500)) + b"]}"
    once = FILE.with_name("packed.bin").read_bytes()
    assert unpacked(once) == data
    assert packed(data) is not None
