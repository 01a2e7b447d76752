"""The probabilities of an answer's tokens in the playground, on answers that are told beforehand."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.openai_answers import BUILT_IN, asked_of, said, scripted
from support.running_server import RunningServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    yield from scripted(tmp_path_factory.mktemp("probabilities"))


def ask(server: RunningServer, prompt: str, **fields: Any) -> Any:
    body = {"base_model": BUILT_IN, "prompt": prompt, **fields}
    return server.post("/api/playground/generate", body)


def test_each_token_has_its_probability_and_the_likeliest_beside_it(server: RunningServer) -> None:
    answer = ask(server, said("Bread ", "rises."), top_logprobs=2).json()
    first, second = answer["logprobs"]
    assert (first["text"], first["logprob"], bytes(first["bytes"])) == ("Bread ", -0.5, b"Bread ")
    assert [one["text"] for one in second["top"]] == ["rises.", "other 1"]
    assert asked_of(ask(server, "Hello", top_logprobs=3).json()["generated_text"]).top_logprobs == 3


def test_they_come_with_their_pieces(server: RunningServer) -> None:
    answer = ask(server, said("Bread ", "rises."), top_logprobs=0, stream=True).text
    *pieces, done = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: ")]
    assert [[one["text"] for one in piece["logprobs"]] for piece in pieces] == [["Bread "], ["rises."]]
    assert [one["text"] for one in done["logprobs"]] == ["Bread ", "rises."]
    assert [one["top"] for one in done["logprobs"]] == [[], []]


def test_who_did_not_ask_for_them_gets_none(server: RunningServer) -> None:
    assert "logprobs" not in ask(server, said("Bread")).json()
    assert "logprobs" not in ask(server, said("Bread"), stream=True).text


def test_an_answer_in_a_context_has_a_score_and_none_of_them(server: RunningServer) -> None:
    answer = ask(server, "Who?", context="Nobody.", task="extractive-question-answering", top_logprobs=1)
    assert (answer.status_code, answer.json()["field"]) == (400, "top_logprobs")
