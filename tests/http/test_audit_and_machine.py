"""What a server says of its own log and of its machine."""

import os
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import requests
from support.problems import problem_in
from support.running_server import RunningServer, modelforge

from modelforge import audit
from modelforge.audit import verify
from modelforge.doctor.examination import examine
from modelforge.layout import Layout

Start = Callable[..., str]


def test_a_running_server_s_log_is_verified_and_says_the_digest_of_its_last_record(
    server: RunningServer, start: Start
) -> None:
    server.wait_for(start(server, "completes"))
    found = server.get("/api/verify")
    assert found.status_code == 200, found.text
    last = server.get("/api/events?limit=10000").json()["events"][-1]
    told = found.json()
    assert (told["records"], told["digest"]) == (last["position"], last["digest"])
    assert (told["fault_count"], told["faults"]) == (0, [])


def test_a_changed_record_is_named_by_the_server_that_runs_on_it(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    server.wait_for(start(server, "completes"))
    with closing(sqlite3.connect(data_dir / "events.sqlite")) as connection:
        connection.execute("UPDATE records SET actor = 'somebody' WHERE position IN (3, 5)")
        connection.commit()
    told = server.get("/api/verify").json()
    assert [fault["position"] for fault in told["faults"]] == [3, 5]
    assert told["fault_count"] == 2
    assert told["faults"] == [{"position": f.position, "what": f.what} for f in verify(Layout(data_dir)).faults]
    assert server.get("/api/health").status_code == 200


def test_of_faults_without_number_the_first_are_told_and_all_are_counted(
    server: RunningServer, start: Start, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.wait_for(start(server, "completes"))
    with closing(sqlite3.connect(data_dir / "events.sqlite")) as connection:
        connection.execute("UPDATE records SET actor = 'somebody'")
        connection.commit()
    whole = verify(Layout(data_dir))
    monkeypatch.setattr(audit, "_MOST_FAULTS", 2)
    found = verify(Layout(data_dir))
    assert (found.faults, found.fault_count) == (whole.faults[:2], whole.records)


def test_a_log_is_verified_for_one_at_a_time(server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: server.get("/api/verify"), range(4))]
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "wait for the end of one" in problem_in(refused)["detail"]
    assert server.get("/api/verify").status_code == 200


def test_a_log_that_is_gone_is_named(server: RunningServer, data_dir: Path) -> None:
    log = Layout(data_dir).log
    away = log.rename(log.with_name("away"))
    problem = problem_in(server.get("/api/verify"))
    assert (problem["status_code"], "no event log" in problem["detail"]) == (500, True)
    away.rename(log)


def test_the_machine_tells_what_it_has_and_who_uses_it(server: RunningServer, start: Start, data_dir: Path) -> None:
    job_id = start(server, "obeys", queue=True)
    server.wait_for(job_id, "training")
    waiting = start(server, "completes", queue=True)
    told = server.get("/api/machine").json()
    assert told["work"] == {"running": [job_id], "at_once": 1, "queued": 1}
    assert 1 <= told["processors"]["usable"] <= told["processors"]["total"] == os.cpu_count()
    assert 0 < told["memory"]["available_bytes"] <= told["memory"]["total_bytes"]
    assert told["disk"]["total_bytes"] == shutil.disk_usage(data_dir).total
    assert told["disk"]["log_bytes"] > 0
    assert isinstance(told["gpus"], list)
    assert told["versions"]["transformers"]
    server.post(f"/api/jobs/{waiting}/stop")
    server.post(f"/api/jobs/{job_id}/stop")
    server.wait_for(job_id)
    assert server.get("/api/machine").json()["work"] == {"running": [], "at_once": 1, "queued": 0}


def test_the_doctor_of_a_running_server_finds_what_the_command_finds(
    server: RunningServer, start: Start, data_dir: Path
) -> None:
    server.wait_for(start(server, "completes"))
    stray = data_dir / "models" / "stray"
    stray.mkdir(parents=True)
    answer = server.post("/api/doctor")
    assert answer.status_code == 200, answer.text
    findings = answer.json()["findings"]
    subjects = [finding["subject"] for finding in findings]
    assert subjects == [finding.subject for finding in examine(Layout(data_dir))]
    (unknown,) = [finding for finding in findings if finding["subject"] == "unknown"]
    assert (unknown["level"], str(stray) in unknown["found"], bool(unknown["remedy"])) == ("warning", True, True)
    (of_server,) = [finding for finding in findings if finding["subject"] == "server"]
    assert (of_server["level"], server.url in of_server["found"]) == ("ok", True)


def test_who_asks_is_told(server: RunningServer) -> None:
    nobody = server.get("/api/session").json()
    assert nobody == {
        "name": None,
        "scope": "write",
        "expires_at": None,
        "signed_in": False,
        "token_required": False,
    }
    owner = server.get("/api/session", headers=server.as_owner()).json()
    assert (owner["name"], owner["scope"], owner["signed_in"]) == ("owner", "admin", False)
    link = server.post("/api/login_links", headers=server.as_owner()).json()["path"]
    browser = requests.Session()
    browser.post(f"{server.url}/api/session", json={"code": link.partition("#")[2]}, timeout=20).raise_for_status()
    signed_in = browser.get(f"{server.url}/api/session", timeout=20).json()
    assert (signed_in["name"], signed_in["scope"], signed_in["signed_in"]) == ("owner", "admin", True)
    assert signed_in["expires_at"].endswith("Z")
    browser.delete(f"{server.url}/api/session", timeout=20)
    assert browser.get(f"{server.url}/api/session", timeout=20).json() == nobody


def test_verify_and_doctor_print_json_for_programs(server: RunningServer, data_dir: Path) -> None:
    server.end()
    verified = modelforge("verify", "--data-dir", str(data_dir), "--json")
    assert (verified.returncode, '"faults":[]' in verified.stdout) == (0, True)
    assert '"level":"ok"' in modelforge("doctor", "--data-dir", str(data_dir), "--json").stdout
