"""Who runs an attempt whose folder several machines see: whoever made `claim` in it, for good. Standard library only.

    claim         made once, whole, by one of all who try: Slurm's job and how often it was restarted, the host, a mark
    heartbeat     written anew each second by whoever holds the claim
    revoked       made by the server: the attempt is given up, and nobody is to go on with it, or begin it

What was claimed is never claimed again: another try is another attempt, with a folder of its own.
"""

import contextlib
import json
import os
from pathlib import Path

CLAIM, HEARTBEAT, REVOKED, STOP, CHECKPOINT = "claim", "heartbeat", "revoked", "stop-asked", "checkpoint-asked"
CLAIM_VARIABLE = "MODELFORGE_CLAIM"
"""Every process of a claimed attempt has the claim's mark and its folder in its environment under this name."""


class ClaimLost(Exception):
    """The attempt was given up: what it made is not to be anybody's."""


def take_claim(folder: Path, record: dict[str, str | int]) -> bool:
    """Claim an attempt, unless it is claimed or given up; whether it was.

    A file is written whole and linked to its name, which one of all wins on a shared file system too (open(2), O_EXCL).
    """
    if (folder / REVOKED).exists():
        return False
    own = folder / f".claim-{record['mark']}"
    with own.open("x") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        with contextlib.suppress(OSError):  # an answer may be lost whose request was carried out: the links tell
            os.link(own, folder / CLAIM)
        # The server revokes an attempt and then looks for its claim, we the other way round: one of us sees the other.
        return own.stat().st_nlink > 1 and not (folder / REVOKED).exists()
    finally:
        own.unlink()


def read_claim(folder: Path) -> dict[str, str | int] | None:
    """The claim on an attempt, if there is one."""
    try:
        found: dict[str, str | int] = json.loads((folder / CLAIM).read_bytes())
    except FileNotFoundError:
        return None
    return found


def claim_of(folder: Path, claim: dict[str, str | int]) -> str:
    """A claim as processes have it in their environment."""
    return f"{claim['mark']}:{folder}"


def check_claim() -> None:
    """Refuse to publish or save for an attempt that is claimed by others, or given up; one that needs no claim may.

    Raises:
        ClaimLost: it is.
    """
    mark, _, folder = os.environ.get(CLAIM_VARIABLE, "").partition(":")
    if not mark:
        return
    claim = read_claim(Path(folder))
    if claim is None or claim["mark"] != mark or (Path(folder) / REVOKED).exists():
        raise ClaimLost("The server gave this attempt up: its model is not published, and another attempt goes on.")
