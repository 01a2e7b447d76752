"""No secret of the server comes out of it: not by a record, an error or its log."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.running_server import RECORDS, RunningServer

from trainer_entry.wire.redaction import REDACTED, Redaction, credentials_in, without_credentials

SECRET = "canary-0123456789"  # noqa: S105 - nobody's


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"Bearer {SECRET} sent", f"Bearer {REDACTED} sent"),
        ("hf_" + "a1B2" * 8 + "cD is a token", f"{REDACTED} is a token"),
        ("mf_" + "a-_B" * 10 + "xyz", REDACTED),
        ("https://me:pass@proxy:8080/x", f"https://{REDACTED}@proxy:8080/x"),
        ("hf://org/name@main?split=train", "hf://org/name@main?split=train"),
        ("hf_hub_download", "hf_hub_download"),
        ("mail me@example.org", "mail me@example.org"),
        ("http://127.0.0.1:8000/a@b", "http://127.0.0.1:8000/a@b"),
    ],
)
def test_what_is_a_secret_and_what_only_looks_like_one(text: str, clean: str) -> None:
    assert Redaction((SECRET, "short"))(text) == clean


@given(before=st.text(), secret=st.text(min_size=8), after=st.text())
def test_a_known_secret_is_nowhere_in_what_is_left(before: str, secret: str, after: str) -> None:
    redact = Redaction((secret,))
    if secret not in REDACTED:
        assert secret not in redact(before + secret + after).replace(REDACTED, "")


def test_an_address_has_its_credentials_taken_out() -> None:
    address = "http://me:pass@proxy.example:3128"
    assert without_credentials(address) == "http://proxy.example:3128"
    assert credentials_in(address) == ("me:pass", "pass")
    assert without_credentials("http://proxy:3128/a@b") == "http://proxy:3128/a@b"
    assert credentials_in("me:pa@ss@proxy:3128") == ("me:pa@ss", "pa@ss")
    assert without_credentials("me:pa@ss@proxy:3128") == "proxy:3128"
    assert Redaction(())("via http://me:pa@ss@proxy:3128/ it failed") == f"via http://{REDACTED}@proxy:3128/ it failed"


def test_what_a_client_sends_of_a_secret_is_in_no_record_error_or_log(
    serve: Callable[..., RunningServer], data_dir: Path
) -> None:
    server = serve(HF_TOKEN=SECRET, HF_HUB_OFFLINE="1")
    uploaded = server.upload(RECORDS, f"{SECRET}.jsonl")
    assert uploaded.status_code == 200
    (dataset,) = server.get("/api/datasets").json()["datasets"]
    assert dataset["filename"] == f"{REDACTED}.jsonl"
    body = {"task": "text-generation", "model_name": f"owner/{SECRET}", "dataset": dataset["filename"]}
    answer = server.post("/api/start_training", body)
    assert (answer.status_code, SECRET in answer.text, REDACTED in answer.text) == (404, False, True)
    assert SECRET not in server.get("/api/events").text
    assert SECRET not in server.end()
    assert all(SECRET.encode() not in path.read_bytes() for path in data_dir.rglob("*") if path.is_file())
