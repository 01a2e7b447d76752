"""Datasets of the hub: how they are named, at which commit they stand, and their rows as JSON lines.

    hf://owner/name[/config][@revision][?split=name]

The rows are fetched by a process of its own (`python -m trainer_entry.hub_dataset`): this one never loads `datasets`.
"""

import asyncio
import re
import shutil
import signal
import tempfile
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

import msgspec
from huggingface_hub import constants
from msgspec import Struct

from modelforge import hub
from modelforge.errors import BadInput, ForgeError, NotFound, StorageFull, TooMuchWork
from modelforge.machine.child_limits import ChildLimits
from modelforge.machine.child_process import run_module
from modelforge.machine.disk_space import reserve_on
from modelforge.machine.trainer_libraries import check_trainer_libraries
from trainer_entry import wire

SCHEME = "hf://"
SPELLING = "hf://owner/name[/config][@revision][?split=name]"
_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(
    rf"hf://(?P<repo>{_PART}/{_PART})(?:/(?P<config>[^<>:/\\|?*@#%\x00-\x1f]{{1,200}}))?"
    r"(?:@(?P<revision>[\w.+-]+(?:/[\w.+-]+)*))?(?:\?split=(?P<split>\w+(?:\.\w+)*))?",
    re.ASCII,
)
_NO_OWNERS = frozenset({"datasets", "models", "spaces", "buckets"})
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DEFAULT_REVISION = "main"
_DEFAULT_SPLIT = "train"
_HUB_SECONDS = 5.0
_CONNECT_SECONDS = 2.0  # a machine without a network shall say so soon
_STILL_SECONDS = 300.0
"""A download in which no row comes for so long is ended; one that goes on may take any time."""
_LIMITS = ChildLimits(memory_bytes=6 << 30)
"""The libraries take one and a half, and a part of a file comes into memory as a whole."""
_ELSEWHERE = "Send a file by its absolute path, or upload one (POST /api/upload_dataset): neither needs the hub."


class HubDataset(Struct, frozen=True, kw_only=True, gc=False):
    """What a name asks for. `config`: one of the several datasets that a repository may have."""

    repo: str
    config: str | None = None
    revision: str = _DEFAULT_REVISION
    split: str = _DEFAULT_SPLIT

    def at(self, commit: str) -> str:
        """The name that means the same rows for ever."""
        config = "" if self.config is None else f"/{self.config}"
        return f"{SCHEME}{self.repo}{config}@{commit}?split={self.split}"


class _Revision(Struct):
    """The part of the hub's answer about a revision that is read."""

    sha: str


def parse_name(name: str) -> HubDataset:
    """The dataset that a name means.

    Raises:
        BadInput: it is no such name; the message says how one is spelled.
    """
    found = _NAME.fullmatch(name)
    repo = found["repo"] if found else ""
    if found is None or "--" in repo or ".." in repo or repo.endswith(".git") or repo.partition("/")[0] in _NO_OWNERS:
        raise BadInput(
            f"{name[:200]!r} names no dataset of the hub",
            f"A dataset of the hub is named {SPELLING}, as in hf://owner/name?split=train: with its owner, one whole "
            f"split ({_DEFAULT_SPLIT!r} if none is given), and a branch, tag or commit as its revision "
            f"({_DEFAULT_REVISION!r}).",
            field="dataset",
        )
    return HubDataset(
        repo=repo,
        config=found["config"],
        revision=found["revision"] or _DEFAULT_REVISION,
        split=found["split"] or _DEFAULT_SPLIT,
    )


async def commit_of(asked: HubDataset) -> str:
    """The commit that a dataset's revision stands for now.

    Raises:
        NotFound: the hub does not have it, does not give it, or cannot be reached.
    """
    if constants.HF_HUB_OFFLINE:
        raise NotFound(
            "The hub is not asked", f"dataset: {asked.repo} is on the hub, and HF_HUB_OFFLINE is set. {_ELSEWHERE}"
        )
    path = f"/api/datasets/{asked.repo}/revision/{quote(asked.revision, safe='')}?expand=sha"
    try:
        answer = await hub.get(path, seconds=_HUB_SECONDS, connect_seconds=_CONNECT_SECONDS)
    except hub.HubUnreachable as error:
        raise _unreachable(asked, str(error)) from error
    status = answer.status
    if status >= 500:  # noqa: PLR2004
        raise _unreachable(asked, f"it answered {status}")
    if status == 404 and answer.error_code == "RevisionNotFound":  # noqa: PLR2004
        raise NotFound(
            "The dataset has no such revision",
            f"dataset: {asked.repo} has no branch, tag or commit {asked.revision!r}; without @{asked.revision} it is "
            f"taken as it stands on {_DEFAULT_REVISION!r}.",
        )
    if status != 200:  # noqa: PLR2004
        raise _not_given(asked, f"the hub answered {status}")
    try:
        commit = msgspec.json.decode(answer.body, type=_Revision).sha
    except (ValueError, RecursionError) as error:
        raise NotFound("The hub's answer cannot be read", f"dataset: {asked.repo}: {error}") from error
    if not _COMMIT.fullmatch(commit):
        raise NotFound("The hub's answer cannot be read", f"dataset: {asked.repo}: {commit[:60]!r} is no commit.")
    return commit


async def fetch_rows(asked: HubDataset, commit: str, rows: Path, limit: int, reserve: int = 0) -> None:
    """Write the rows of a dataset at a commit as JSON lines into a file in a folder for temporary files.

    It takes as long as rows come; whoever does not want to wait cancels it. `limit`: the bytes that they may have, and
    `reserve`: those of the disk that stay free.

    Raises:
        BadInput: there is no such split or config, or its rows cannot be trained on.
        NotFound: the hub does not give it, or cannot be reached any more.
        StorageFull: there is no room for it.
        TooMuchWork: nothing came any more, or there was no memory for it.
    """
    check_trainer_libraries()
    scratch = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=rows.parent, prefix="hub-"))
    request = wire.FetchRows(
        repo=asked.repo,
        config=asked.config,
        commit=commit,
        split=asked.split,
        rows=str(rows),
        scratch=str(scratch),
        limit=limit,
        still_seconds=_STILL_SECONDS,
        reserve=await asyncio.to_thread(reserve_on, rows.parent, reserve),
    )
    try:
        asked_for = msgspec.json.encode(request)
        ended = await run_module("trainer_entry.hub_dataset", stdin=asked_for, limits=_LIMITS, asks_hub=True)
    finally:
        await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
    if ended.code == -signal.SIGALRM:
        raise TooMuchWork(
            "The dataset does not come any more", f"{asked.repo}: the hub sent nothing for {_STILL_SECONDS:.0f} s."
        )
    if ended.code in {-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV}:
        raise TooMuchWork(
            "The process that fetched the dataset was killed",
            f"{asked.repo}: probably there was no memory left for it, since a row or a part of a file is very large.",
        )
    if ended.code != 0:
        raise RuntimeError(f"The fetching of a dataset ended with {ended.code}: {ended.words[-2000:]}")
    answer: wire.AnyRows = msgspec.json.decode(ended.output, type=wire.AnyRows)
    if isinstance(answer, wire.RowsRefused):
        raise _refusal(asked, answer)


def _refusal(asked: HubDataset, answer: wire.RowsRefused) -> ForgeError:
    match answer.kind:
        case "access":
            return _not_given(asked, answer.message)
        case "unreachable":
            return _unreachable(asked, answer.message)
        case "full":
            return StorageFull("No space is left on the disk", f"Free some space and try again; {answer.message}.")
        case "unusable":
            return BadInput(
                "The dataset cannot be taken from the hub", f"{asked.repo}: {answer.message}", field="dataset"
            )
        case _:
            assert_never(answer.kind)


def _unreachable(asked: HubDataset, why: str) -> NotFound:
    return NotFound(
        "The hub cannot be reached",
        f"dataset: {asked.repo} is on the hub ({constants.ENDPOINT}), and {why}. Try again later. {_ELSEWHERE}",
    )


def _not_given(asked: HubDataset, why: str) -> NotFound:
    return NotFound(
        "The hub does not give this dataset",
        f"dataset: {asked.repo}: {why}. Check the spelling; for a private or gated dataset ask for access on its "
        "page, and start the server with HF_TOKEN set, or log in once with `hf auth login`.",
    )
