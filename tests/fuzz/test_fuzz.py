from pathlib import Path

import pytest
from support.attempt_files import model_in

from fuzz.__main__ import fuzz, told
from fuzz.campaign import Round


@pytest.mark.slow
def test_a_server_does_what_its_document_says(tmp_path: Path) -> None:
    campaign = fuzz(
        tmp_path,
        model_in(tmp_path),
        seed=3,
        requests=200,
        size=Round(examples=4, scenarios=20, bounds=False, prompts=False),
    )
    assert campaign.findings == {}, told(campaign)
    assert campaign.requests >= 200
    assert len(campaign.reached) > 12, told(campaign)
