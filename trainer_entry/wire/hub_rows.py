"""The request for the rows of a dataset on the hub, and the answer."""

from typing import Literal

from msgspec import Struct


class FetchRows(Struct, frozen=True, kw_only=True, gc=False):
    """What `python -m trainer_entry.hub_dataset` is asked on stdin: to write the rows of a split as JSON lines.

    `commit`: 40 hex digits. `rows`: the file to write. `scratch`: a folder for what is only needed meanwhile.
    `limit`: the bytes that the file may have. `still_seconds`: when no rows come for so long, the system ends it.
    `reserve`: bytes of the disk that stay free.
    """

    repo: str
    config: str | None
    commit: str
    split: str
    rows: str
    scratch: str
    limit: int
    still_seconds: float
    reserve: int = 0


class RowsFetched(Struct, frozen=True, kw_only=True, tag_field="type", tag="fetched", gc=False):
    """How many rows there were. `left_out`: the columns that are no text, such as images."""

    rows: int
    left_out: tuple[str, ...]


class RowsRefused(Struct, frozen=True, kw_only=True, tag_field="type", tag="refused", gc=False):
    """Why there are no rows to train on.

    `access`: the hub does not let this token read them. `unreachable`: it does not answer, or not with what it should.
    `unusable`: they are not there, too many, or no texts. `full`: there is no room on the disk for them.
    """

    kind: Literal["access", "unreachable", "unusable", "full"]
    message: str


AnyRows = RowsFetched | RowsRefused
