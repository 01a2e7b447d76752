"""Every format of dataset records is recognised, and its faults are named by line and field."""

import json

import pytest
from support.running_server import RunningServer

CONTEXT = "Ada Lovelace wrote the first program in 1843."
USER = {"role": "user", "content": "Say something"}
GOOD = {"role": "assistant", "content": "Something good"}
BAD = {"role": "assistant", "content": "Something bad"}
QUESTION = {"context": CONTEXT, "question": "When?"}


def squad(texts: list[object], starts: list[object]) -> dict[str, object]:
    return {**QUESTION, "answers": {"text": texts, "answer_start": starts}}


def preference(**changed: object) -> dict[str, object]:
    return {"prompt": "Say something", "chosen": "Something good", "rejected": "Something bad", **changed}


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.mark.parametrize(
    ("records", "dataset_format"),
    [
        ([{"document": "A long text", "summary": "Short", "id": 7}], "document_summary"),
        ([{"article": "A long text", "highlights": "Short"}], "article_highlights"),
        ([{**QUESTION, "answer": "1843"}, {**QUESTION, "answer": ""}], "question_answer"),
        ([{**squad(["1843", "Ada"], [40, 0]), "title": "Ada"}, squad([], [])], "squad"),
        ([preference()], "preferences"),
        ([preference(prompt=[{"role": "system", "content": "Be short"}, USER], chosen=[GOOD])], "preferences"),
        ([preference(prompt=[USER, GOOD, USER], chosen=[GOOD, USER, GOOD], rejected=[BAD])], "preferences"),
    ],
)
def test_a_format_is_recognised_by_its_fields(
    module_server: RunningServer, records: list[object], dataset_format: str
) -> None:
    answer = module_server.upload(lines(*records))
    assert answer.status_code == 200, answer.text
    assert (answer.json()["format"], answer.json()["num_examples"]) == (dataset_format, len(records))
    assert answer.json()["validation"] == {
        "valid": True,
        "errors": [],
        "error_count": 0,
        "warnings": [],
        "warning_count": 0,
    }


@pytest.mark.parametrize(
    ("record", "field", "says"),
    [
        ({"document": "A text"}, "summary", '{"document": "…", "summary": "…"}'),
        ({**QUESTION, "answer": "1844"}, "answer", "does not stand in the context"),
        (squad(["1843"], [39]), "answers.answer_start[0]", "stands at 40"),
        (preference(chosen=[USER]), "chosen[0].role", "expected assistant"),
        ({"colour": "red"}, None, "found 'colour'"),
    ],
)
def test_a_fault_says_where_it_is_and_what_would_be_right(
    module_server: RunningServer, record: object, field: str | None, says: str
) -> None:
    answer = module_server.upload(lines(record))
    assert answer.status_code == 400
    fault = answer.json()["validation"]["errors"][0]
    assert (fault["line"], fault["field"]) == (1, field)
    assert says in fault["message"]


def test_a_record_of_another_format_than_the_first_is_named(module_server: RunningServer) -> None:
    answer = module_server.upload(lines({**QUESTION, "answer": "1843"}, {"document": "A text", "summary": "Short"}))
    (fault,) = answer.json()["validation"]["errors"]
    assert fault["line"] == 2
    assert "document_summary" in fault["message"]
    assert "question_answer" in fault["message"]


def test_a_dataset_that_the_task_and_strategy_cannot_use_is_not_taken_in(module_server: RunningServer) -> None:
    content, task = lines({**QUESTION, "answer": "1843"}), "extractive-question-answering"
    before = module_server.get("/api/datasets").json()
    refused = module_server.upload(content, filename="questions.jsonl", task="text-generation")
    assert (refused.status_code, refused.json()["field"]) == (400, "file")
    assert task in refused.json()["detail"]
    assert module_server.get("/api/datasets").json() == before
