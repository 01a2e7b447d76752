"""What `/metrics` says, read as Prometheus reads it."""

from collections.abc import Callable
from pathlib import Path

import prometheus_client.openmetrics.parser
import prometheus_client.parser
import pytest
from support.running_server import RunningServer
from support.told_metrics import told_metrics

from modelforge.domain.state import State
from modelforge.http.plumbing.exposition import Exposition
from modelforge.layout import Layout
from modelforge.machine import devices
from modelforge.projections.indexes import Indexes
from modelforge.projections.projector import Projector
from modelforge.projections.read_models import ReadModels

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def samples_of(server: RunningServer) -> dict[tuple[str, ...], float]:
    """Every figure, by its name and the values of its labels."""
    families = prometheus_client.parser.text_string_to_metric_families(server.get("/metrics").text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_what_happens_to_jobs_is_counted_and_those_that_run_have_their_figures(
    server: RunningServer, start: Callable[..., str]
) -> None:
    before = samples_of(server)
    assert before["modelforge_jobs_total", "training"] == before["modelforge_job_ends_total", "completed"] == 0
    server.wait_for(start(server, "completes"))
    running = start(server, "waits", max_steps=5000)
    server.wait_for(running, "training")
    now = samples_of(server)
    assert now["modelforge_jobs_total", "training"] == 2
    assert now["modelforge_job_states", "completed"] == now["modelforge_job_states", "training"] == 1
    assert now["modelforge_job_ends_total", "completed"] == 1
    assert now["modelforge_job_attempts_total",] == 2
    assert now["modelforge_job_duration_seconds_count", "training"] == 1
    assert now["modelforge_job_planned_steps", running] == 5000
    assert 0 <= now["modelforge_job_progress_ratio", running] < 1
    assert now["modelforge_models",] == now["modelforge_datasets",] == 1
    assert now["modelforge_log_records_total",] > before["modelforge_log_records_total",]
    assert now["modelforge_disk_free_bytes",] <= now["modelforge_disk_size_bytes",]
    assert now["process_resident_memory_bytes",] > 1e6
    server.end()
    server.start()
    assert samples_of(server)["modelforge_jobs_total", "training"] == 2, "what the log has outlasts a server"


def test_openmetrics_is_answered_where_it_is_asked_for(module_server: RunningServer) -> None:
    plain = module_server.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")
    answer = module_server.get("/metrics", headers={"Accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = [*prometheus_client.openmetrics.parser.text_string_to_metric_families(answer.text)]
    assert {family.name for family in families} >= {"modelforge_jobs", "modelforge_build"}


@pytest.mark.parametrize(
    "version", ['"1.0.0"', "latest", "1.x", "1.0.\u00e9", "-1", "", "1.0.0.0", "9" * 500, "1.0.0; escaping=?"]
)
@pytest.mark.parametrize("media", ["application/openmetrics-text", "text/plain"])
def test_a_version_that_is_none_is_answered_too(module_server: RunningServer, media: str, version: str) -> None:
    accept = f"{media};version={version};q=0.5,{media}; version={version}, */*"
    answer = module_server.get("/metrics", headers={"Accept": accept.encode()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(media)


async def test_no_answer_asks_the_driver_of_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        raise AssertionError("this takes seconds where the driver is not loaded")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_count_gpus", count)
    layout = Layout(tmp_path)
    layout.log.touch()
    text, _ = Exposition(State(), Projector(Indexes(ReadModels())), layout, 2).answer("")
    assert b"\nmodelforge_gpus 2.0\n" in text


def test_every_metric_has_its_line_in_the_docs_and_a_unit_in_its_name(module_server: RunningServer) -> None:
    text = module_server.get("/metrics").text
    families = [*prometheus_client.parser.text_string_to_metric_families(text)]
    totals = {"counter": "_total"}
    ours = {one.name + totals.get(one.type, "") for one in families if "modelforge" in one.name}
    assert {name for name in ours if not name.endswith("_created")} == told_metrics()
    assert all(family.documentation for family in families)
