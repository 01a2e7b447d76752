"""Who may run an attempt whose folder several machines see."""

import os
from pathlib import Path

import pytest

from trainer_entry.runtime.claim import REVOKED, take_claim

RECORD: dict[str, str | int] = {"slurm_id": 7, "restarts": 0, "mark": "a"}


def test_an_attempt_that_is_revoked_while_it_is_claimed_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def revoked_meanwhile(source: Path, target: Path) -> None:
        link(source, target)
        (tmp_path / REVOKED).touch()

    monkeypatch.setattr(os, "link", revoked_meanwhile)
    assert not take_claim(tmp_path, RECORD)
