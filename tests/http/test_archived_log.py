"""A server whose log was archived answers as before; what lies in a segment that is away is refused by its name."""

import asyncio
import hashlib
import json
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import aiohttp
from support.attempt_files import until_step
from support.problems import problem_in
from support.running_log import write
from support.running_server import RunningServer, modelforge
from support.scenario import records_of, register_dataset

from modelforge.backup.restoring import restore_backup
from modelforge.backup.taking import take_backup
from modelforge.doctor.examination import directory_findings
from modelforge.layout import Layout

Start = Callable[..., str]
Serve = Callable[..., RunningServer]


def all_events(server: RunningServer) -> str:
    return server.get("/api/events?limit=10000").text


def broken_at(events: str) -> int | None:
    """The first position of `/api/events` whose digest is not what docs/api.md says, by nothing of ours."""
    previous, has_second = "0" * 64, False
    at = events.index('"events":[') + len('"events":[')
    while events[at] == "{":
        record, end = json.JSONDecoder().raw_decode(events, at)
        text = events[at:end]
        data = text[text.index('"data":') + len('"data":') : text.rindex(',"digest":')]
        names = ("position", "stream", "version", "kind", "type", "at", "cause", "actor")
        columns = json.dumps([record[name] for name in names], ensure_ascii=False, separators=(",", ":"))[:-1]
        content = hashlib.sha256(data.encode()).hexdigest()
        first, second = (
            hashlib.sha256(f"{previous}{columns},{last}]".encode()).hexdigest() for last in (data, f'"{content}"')
        )
        has_second = has_second or record["digest"] == second
        if record["digest"] != (second if has_second else first):
            return int(record["position"])
        previous, at = record["digest"], end + (events[end] == ",")
    return None


def archive(data_dir: Path, before: str) -> str:
    ended = modelforge("archive", "--data-dir", str(data_dir), "--before", before)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def get_all(server: RunningServer, job_id: str) -> list[str]:
    """What a server says of its past."""
    paths = [f"/api/jobs/{job_id}/metrics?after={after}&limit=7" for after in (0, 9, 17)]
    paths += [
        f"/api/events?{query}" for query in ("limit=5", "limit=9&after=4", f"stream={job_id}", "type=DatasetUploaded")
    ]
    paths += ["/api/state?at=6", "/api/jobs", "/api/models", "/api/datasets/data.jsonl", f"/api/jobs/{job_id}"]
    answers = [server.get(path) for path in paths]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.text for answer in answers]


def test_an_independent_verifier_agrees_with_the_log_of_an_older_release_and_of_this(
    serve: Serve, data_dir: Path
) -> None:
    past = records_of(*(register_dataset(filename=f'{name}"\u2028\x01.jsonl') for name in "abc"), second_from=9)
    data_dir.mkdir()
    write(Layout(data_dir).log, past)
    server = serve()
    server.upload(b'{"input": "a", "output": "b"}\n').raise_for_status()
    events = all_events(server)
    assert len(json.loads(events)["events"]) > len(past)
    assert broken_at(events) is None
    assert broken_at(events.replace("data.jsonl", "date.jsonl", 1)) == len(past) + 1
    assert broken_at(events.replace('"b\\"', '"x\\"', 1)) == 2


def test_a_server_tells_of_what_was_archived_as_it_did_before(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    job_id = start(server, "completes")
    server.wait_for(job_id)
    before, events = get_all(server, job_id), all_events(server)
    end = json.loads(events)["last_position"]
    server.end()
    (data_dir / "snapshot.sqlite").unlink()
    assert "Archived 9 records in 1 segment" in archive(data_dir, "10")
    made = [data_dir / "snapshot.sqlite", *Layout(data_dir).segments.iterdir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}
    said = archive(data_dir, str(end + 1))
    assert re.search(rf"000000000010-{end:012}\.segment", said)
    server = serve()
    assert all_events(server) == events
    assert get_all(server, job_id) == before
    assert broken_at(events) is None
    told = server.get("/api/verify").json()
    assert (told["archived"], told["records"], told["faults"], told["away"]) == (end, end, [], [])
    refused = modelforge("archive", "--data-dir", str(data_dir), "--before", "5")
    assert (refused.returncode, "Another server has this data directory" in refused.stderr) == (1, True)


def test_what_lies_elsewhere_is_refused_by_the_name_of_its_file_and_read_again_once_it_is_back(
    serve: Serve, start: Start, data_dir: Path
) -> None:
    server = serve()
    job_id = start(server, "completes")
    server.wait_for(job_id)
    before, events = get_all(server, job_id), json.loads(all_events(server))
    end = events["last_position"]
    server.end()
    archive(data_dir, str(end + 1))
    (segment,) = Layout(data_dir).segments.iterdir()
    elsewhere = segment.rename(data_dir / "on-a-tape")

    server = serve()
    assert server.get("/api/training_status").status_code == 200
    assert server.get("/api/jobs").text in before
    assert server.get("/api/models").text in before
    server.upload(b'{"input": "a", "output": "c"}\n').raise_for_status()
    assert server.get(f"/api/events?after={end}").json()["events"][0]["position"] == end + 1
    for path in ("/api/events", f"/api/jobs/{job_id}/metrics", "/api/state?at=6", "/api/datasets/data.jsonl"):
        answer = server.get(path)
        assert answer.status_code == 410, path
        assert segment.name in problem_in(answer)["detail"]
    assert b"goodbye" in listened(f"{server.url}/api/events/stream?after=3")
    told = server.get("/api/verify").json()
    assert told["away"] == [{"file": segment.name, "first": 1, "last": end}]
    assert (told["faults"], told["digest"]) == (
        [],
        json.loads(server.get(f"/api/events?after={end}").text)["events"][-1]["digest"],
    )

    alone = modelforge("verify", "--segment", str(elsewhere))
    assert (alone.returncode, f"Positions 1 to {end}, 0 faults" in alone.stdout) == (0, True)
    assert events["events"][-1]["digest"] in alone.stdout
    elsewhere.rename(segment)
    assert json.loads(all_events(server))["events"][:end] == events["events"]

    whole = segment.read_bytes()
    segment.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    assert f"{segment.name}, which is damaged" in listened(f"{server.url}/api/events/stream?after=0").decode()
    segment.write_bytes(whole)


def listened(url: str) -> bytes:
    async def collect() -> bytes:
        async with aiohttp.ClientSession() as session, session.get(url) as answer, asyncio.timeout(30):
            return await answer.content.read()

    return asyncio.run(collect())


def test_a_job_that_trains_while_the_log_is_archived_loses_no_step(serve: Serve, start: Start, data_dir: Path) -> None:
    server = serve()
    job_id = start(server, "waits", max_steps=60)
    until_step(server, job_id, 5)
    server.end()
    assert f"{job_id} is not over" in archive(data_dir, "2200-01-01")
    server = serve()
    assert server.wait_for(job_id)["status"] == "completed"
    metrics = server.get(f"/api/jobs/{job_id}/metrics?limit=1000").json()["metrics"]
    assert [metric["step"] for metric in metrics] == [*range(1, 61)]
    assert broken_at(all_events(server)) is None


def test_backups_have_segments_and_doctors_look_at_them(
    serve: Serve, start: Start, data_dir: Path, tmp_path: Path
) -> None:
    server = serve()
    server.wait_for(start(server, "completes"))
    events = all_events(server)
    server.end()
    archive(data_dir, "9")
    archive(data_dir, "13")
    layout = Layout(data_dir)
    assert {found.level for found in directory_findings(layout) if found.subject in {"log", "archive"}} == {"ok"}

    assert take_backup(layout, tmp_path / "backup").away == ()
    data_dir.rename(tmp_path / "was")
    restore_backup(tmp_path / "backup", layout)
    server = serve()
    assert all_events(server) == events
    server.end()

    first, second = sorted(layout.segments.iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[:100] + b"x" + whole[101:])
    (left,) = (layout.segments / "begun.segment.partial",)
    left.touch()
    found = [finding for finding in directory_findings(layout) if finding.subject in {"log", "archive"}]
    assert [(one.level, first.name in one.found) for one in found if one.level == "problem"] == [("problem", True)]
    assert [one.level for one in found if left.name in one.found] == ["warning"]
    first.write_bytes(whole)
    second.rename(tmp_path / "on-a-tape")
    found = [finding for finding in directory_findings(layout) if finding.subject == "archive"]
    assert [(one.level, second.name in one.found) for one in found] == [("warning", True), ("warning", False)]
    taken = take_backup(layout, tmp_path / "second")
    assert (taken.away, taken.missing) == ((f"log-segments/{second.name}",), ())
    shutil.rmtree(data_dir)
    restore_backup(tmp_path / "second", layout)
    assert [path.name for path in layout.segments.iterdir()] == [first.name]
