"""OpenAI's own client, against a server as a user starts it: a real training of a tiny model, and real answers."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from support.running_server import RECORDS, RunningServer, forked_real_server
from support.tiny_model import build_tiny_model

from trainer_entry import wire

pytestmark = [pytest.mark.training, pytest.mark.slow]

BUILT_IN = wire.BUILT_IN_MODEL
IS_THERE = Path(wire.built_in_model_folder(str(Path.home()), os.environ.get("XDG_CACHE_HOME"))).is_dir()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningServer, Path]]:
    folder = tmp_path_factory.mktemp("openai")
    server = forked_real_server(folder)
    yield server, folder
    server.end()


@pytest.fixture(scope="module")
def client(server: tuple[RunningServer, Path]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0].url}/v1", api_key="none", max_retries=0) as client:
        yield client


def trained(client: openai.OpenAI, model: Path) -> Any:
    """A training of two steps, to its end."""
    file = client.files.create(file=("train.jsonl", RECORDS), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=str(model),
        training_file=file.id,
        suffix="tuned",
        seed=1,
        extra_body={"modelforge": {"max_steps": 2, "save_steps": 1, "lora_r": 2}},
    )
    while (job := client.fine_tuning.jobs.retrieve(job.id)).status in {"queued", "running"}:
        time.sleep(0.1)
    assert job.status == "succeeded", job.error
    return job


def test_a_model_is_trained_and_asked_by_the_stock_client_alone(
    client: openai.OpenAI, server: tuple[RunningServer, Path]
) -> None:
    model = build_tiny_model(server[1] / "model")
    job = trained(client, model)
    assert job.hyperparameters.learning_rate_multiplier == 1
    assert [one.step_number for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == [2, 1]
    losses = [one.data for one in client.fine_tuning.jobs.list_events(job.id) if one.type == "metrics"]
    assert len(losses) == 2
    assert job.fine_tuned_model is not None
    assert client.models.retrieve(job.fine_tuned_model).id in {one.id for one in client.models.list()}
    for name in (job.fine_tuned_model, str(model)):
        answers_of(client, name)
    assert client.models.delete(job.fine_tuned_model).deleted
    assert client.files.delete(job.training_file).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(job.fine_tuned_model)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=job.fine_tuned_model, messages=[{"role": "user", "content": "x"}])


def answers_of(client: openai.OpenAI, model: str) -> None:
    """What holds of any model that writes texts."""
    messages: Any = [{"role": "user", "content": "Name a colour of the sky."}]
    ask: Any = {"model": model, "messages": messages, "max_tokens": 6, "temperature": 0}
    whole = client.chat.completions.create(**ask, n=2, logprobs=True, top_logprobs=2)
    assert whole.usage is not None
    assert len({choice.message.content for choice in whole.choices}) == 1
    assert 2 <= whole.usage.completion_tokens <= 12
    assert whole.usage.prompt_tokens > 0
    first = whole.choices[0]
    assert first.logprobs is not None
    assert first.logprobs.content is not None
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in first.logprobs.content)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == first.message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    text = client.completions.create(model=model, prompt="The sky is", max_tokens=4, temperature=0, logprobs=1)
    assert text.choices[0].logprobs is not None
    assert text.choices[0].logprobs.text_offset is not None
    assert text.choices[0].logprobs.text_offset[0] == 0
    assert client.completions.create(model=model, prompt=[5, 6, 7], max_tokens=4, echo=False).usage is not None
    response = client.responses.create(model=model, input=messages[0]["content"], max_output_tokens=6, temperature=0)
    assert response.output_text == first.message.content
    with client.responses.stream(model=model, input="Hello", max_output_tokens=4) as events:
        assert list(events)[-1].type in {"response.completed", "response.incomplete"}
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "long " * 20_000}])
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as no_token:
        client.completions.create(model=model, prompt=[2**31 - 1])
    assert no_token.value.param == "prompt"


@pytest.mark.skipif(not IS_THERE, reason="the built-in model is not on this machine")
def test_the_built_in_model_is_asked_by_the_stock_client_alone(client: openai.OpenAI) -> None:
    answers_of(client, BUILT_IN)
    messages: Any = [
        {"role": "system", "content": "You repeat words."},
        {"role": "user", "content": "Say: apple"},
        {"role": "assistant", "content": "apple"},
        {"role": "user", "content": "Say: banana"},
    ]
    ask: Any = {"model": BUILT_IN, "messages": messages, "max_tokens": 8, "temperature": 0}
    said = client.chat.completions.create(**ask).choices[0].message.content
    assert said is not None
    assert "banana" in said.lower()
    stopped = client.chat.completions.create(**ask, stop=["nan"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content is not None
    assert said.startswith(stopped.message.content)
    assert "nan" not in stopped.message.content
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as no_tools:
        client.chat.completions.create(**ask, tools=[tool])
    assert "template knows no tools" in no_tools.value.message
