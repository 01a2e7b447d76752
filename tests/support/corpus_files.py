"""The corpus: files as data, each with what the check must say of it."""

import base64
from pathlib import Path

import msgspec
from msgspec import Struct

_FOLDER = Path(__file__).parents[1] / "datasets" / "validation" / "corpus"


class Told(Struct, frozen=True, forbid_unknown_fields=True):
    """An error or a warning; `says` is how its message begins."""

    line: int
    field: str | None
    says: str


class BadFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is refused. Its bytes are `text` in UTF-8, or stand in Base64."""

    name: str
    filename: str
    errors: list[Told]
    text: str | None = None
    base64: str | None = None
    columns: dict[str, str] | None = None

    @property
    def content(self) -> bytes:
        return content_of(self.text, self.base64)


class GoodFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that is taken."""

    name: str
    filename: str
    format: str
    container: str
    compression: str | None
    num_examples: int
    warnings: list[Told]
    text: str | None = None
    base64: str | None = None
    columns: dict[str, str] | None = None

    @property
    def content(self) -> bytes:
        return content_of(self.text, self.base64)


def content_of(text: str | None, encoded: str | None) -> bytes:
    return base64.b64decode(encoded) if encoded is not None else (text or "").encode()


BAD = [msgspec.json.decode(line, type=BadFile) for line in (_FOLDER / "bad.jsonl").read_bytes().splitlines()]
GOOD = [msgspec.json.decode(line, type=GoodFile) for line in (_FOLDER / "good.jsonl").read_bytes().splitlines()]
