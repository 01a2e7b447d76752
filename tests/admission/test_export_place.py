"""Where an export may go, beside what the server keeps for itself."""

from pathlib import Path

import pytest

from modelforge.admission.work import _export_place
from modelforge.errors import BadInput
from modelforge.layout import Layout
from modelforge.settings import load_settings


@pytest.mark.parametrize("inside", ["models", "jobs", "."])
def test_an_export_goes_not_among_what_the_server_shares_with_its_nodes(tmp_path: Path, inside: str) -> None:
    shared = tmp_path / "shared"
    layout = Layout(tmp_path / "data", shared)
    (shared / inside).mkdir(parents=True)
    settings = load_settings({"data_dir": str(layout.root), "model_roots": [str(tmp_path)]}, environ={})
    (tmp_path / "beside").mkdir()
    assert _export_place(str(tmp_path / "beside" / "mine"), settings, layout).to == f"{tmp_path}/beside/mine"
    with pytest.raises(BadInput, match="among the server's own files"):
        _export_place(str(shared / inside / "mine"), settings, layout)
