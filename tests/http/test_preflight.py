"""What is told of a training before it starts: all that speaks against it, and what it takes; nothing is started."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.attempt_files import write_weights
from support.running_server import RECORDS, RunningServer
from support.tiny_model import build_tiny_model

pytestmark = pytest.mark.slow
CONVERSATIONS = b'{"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}\n' * 3
HUGE = {"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "vocab_size": 32_000}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def templateless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "plain", chat_template=None)


@pytest.fixture(scope="module")
def stocked(module_server: RunningServer) -> RunningServer:
    module_server.upload(RECORDS).raise_for_status()
    module_server.upload(RECORDS * 10, "many.jsonl").raise_for_status()
    module_server.upload(CONVERSATIONS, "talks.jsonl").raise_for_status()
    return module_server


@pytest.fixture
def copied(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copied"))


def body_of(model: Path | str, **fields: object) -> dict[str, object]:
    return {"task": "text-generation", "model_name": str(model), "dataset": "data.jsonl", **fields}


def position_of(server: RunningServer) -> int:
    return int(server.get("/api/events?limit=1").json()["last_position"])


def problems_of(server: RunningServer, body: dict[str, object]) -> list[dict[str, str]]:
    """The problems that preflight tells, once it is sure that starting is refused for them, and leaves nothing."""
    before = position_of(server)
    answer = server.post("/api/preflight", body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["ok"] is (not told["problems"])
    assert position_of(server) == before
    if told["problems"]:
        refused = server.post("/api/start_training", body)
        assert refused.status_code in {400, 404}
        # What is available changes meanwhile: figures are not compared.
        assert without_figures(refused.json()["error"]) == without_figures(told["problems"][0]["message"])
        if len(told["problems"]) > 1:
            assert [problem["field"] for problem in refused.json()["problems"]] == [
                problem["field"] for problem in told["problems"]
            ]
        assert position_of(server) == before
    problems: list[dict[str, str]] = told["problems"]
    return problems


def without_figures(text: str) -> str:
    return re.sub(r"[\d.,]+", "", text)


def huge_model(folder: Path, layers: int = 80) -> Path:
    """A model of many billion numbers whose files take no room."""
    folder.mkdir()
    hidden = HUGE["hidden_size"]
    shapes = {f"model.layers.{n}.self_attn.q_proj.weight": (hidden, hidden) for n in range(layers)}
    write_weights(folder / "model.safetensors", shapes | {"model.embed_tokens.weight": (32_000, hidden)})
    (folder / "config.json").write_text(json.dumps({**HUGE, "num_hidden_layers": layers, "hidden_act": "silu"}))
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": words}))
    return folder


def test_a_training_that_fits_is_told_what_it_takes(stocked: RunningServer, tiny: Path) -> None:
    before = position_of(stocked)
    told = stocked.post("/api/preflight", body_of(tiny)).json()
    assert (told["ok"], told["problems"]) == (True, [])
    memory, disk = told["memory"], told["disk"]
    parts = ("weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes", "process_bytes")
    assert memory["required_bytes"] == sum(memory[part] for part in parts)
    assert memory["required_bytes"] <= memory["available_bytes"] <= memory["total_bytes"]
    assert memory["batch_size"] <= memory["largest_batch_size"]
    assert memory["sequence_length"] <= memory["largest_sequence_length"] <= 256
    assert disk["required_bytes"] == disk["checkpoints"] * disk["checkpoint_bytes"] + disk["model_bytes"]
    assert disk["required_bytes"] <= disk["available_bytes"]
    assert position_of(stocked) == before
    assert stocked.get("/api/jobs").json()["jobs"] == []


def test_everything_that_is_wrong_is_told_at_once(stocked: RunningServer, tiny: Path) -> None:
    body = body_of(tiny, dataset="none.jsonl", use_4bit=True)
    assert [problem["field"] for problem in problems_of(stocked, body)] == ["use_4bit", "dataset"]
    body = body_of("no such model!", dataset="none.jsonl", bf16=True, fp16=True)
    problems = problems_of(stocked, body)
    assert [problem["field"] for problem in problems] == ["bf16", "model_name", "dataset"]
    assert all(problem["message"] and problem["remedy"] for problem in problems)


def test_a_body_that_cannot_be_read_is_refused_as_for_a_start(stocked: RunningServer, tiny: Path) -> None:
    for fields in ({"learning_rte": 1}, {"max_steps": "many"}):
        answer = stocked.post("/api/preflight", body_of(tiny, **fields))
        assert (answer.status_code, answer.json()["field"]) == (400, next(iter(fields)))


def test_torn_weights_are_refused_by_name(stocked: RunningServer, copied: Path) -> None:
    assert problems_of(stocked, body_of(copied)) == []
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (problem,) = problems_of(stocked, body_of(copied))
    assert problem["field"] == "model_name"
    assert "model.safetensors: it is torn" in problem["remedy"]


def break_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": "1.0"')


def remove_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


@pytest.mark.parametrize("harm", [break_tokenizer, remove_tokenizer])
def test_a_tokenizer_that_cannot_be_read_is_refused(
    stocked: RunningServer, copied: Path, harm: Callable[[Path], None]
) -> None:
    harm(copied)
    (problem,) = problems_of(stocked, body_of(copied))
    assert problem["field"] == "model_name"
    assert "tokenizer.json" in problem["remedy"]


def test_conversations_need_a_chat_template(stocked: RunningServer, tiny: Path, templateless: Path) -> None:
    assert problems_of(stocked, body_of(templateless)) == []
    assert problems_of(stocked, body_of(tiny, dataset="talks.jsonl")) == []
    (problem,) = problems_of(stocked, body_of(templateless, dataset="talks.jsonl"))
    assert "chat template" in problem["message"]
    assert "instruction-tuned" in problem["remedy"]


def test_tools_need_a_chat_template_that_knows_them(stocked: RunningServer, copied: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    turns = [
        {"role": "user", "content": "Weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "3 degrees"},
        {"role": "assistant", "content": "It is 3 degrees."},
    ]
    line = json.dumps({"messages": turns}).encode() + b"\n"
    assert stocked.upload(line * 4, filename="tools.jsonl").status_code == 200
    assert stocked.get("/api/datasets/tools.jsonl").json()["has_tools"]
    body = body_of(copied, dataset="tools.jsonl")
    (problem,) = problems_of(stocked, body)
    assert "knows no tools" in problem["message"]
    refused = stocked.post("/api/start_training", body)
    assert (refused.status_code, refused.json()["field"]) == (400, "model_name")
    template = copied / "chat_template.jinja"
    template.write_text("{%- if tools %}{{ tools | tojson }}{%- endif %}" + template.read_text())
    assert problems_of(stocked, body) == []


def test_layers_that_the_model_does_not_have_are_refused_with_those_that_it_has(
    stocked: RunningServer, tiny: Path
) -> None:
    assert problems_of(stocked, body_of(tiny, target_modules=["q_proj", "c_attn"])) == []
    (problem,) = problems_of(stocked, body_of(tiny, target_modules=["c_attn"]))
    assert problem["field"] == "target_modules"
    assert "q_proj" in problem["remedy"]


def test_a_model_that_is_too_large_is_refused(stocked: RunningServer, tmp_path: Path) -> None:
    problems = problems_of(stocked, body_of(huge_model(tmp_path / "huge", 8000), use_lora=False))
    assert problems[0]["field"] == "model_name"
    assert "GB" in problems[0]["message"]
    assert "No batch size or sequence length fits" in problems[0]["remedy"] or "smaller model" in problems[0]["remedy"]


ALL_LOGITS = {"torch_compile": True}
"""Then the model's own head makes them, all at once."""


def say_vocabulary(model: Path, size: int) -> None:
    """Logits take 20 bytes a token and a word where all are made: with many words they are all that counts."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": size}))


def test_a_batch_that_is_too_large_is_refused_with_the_largest_that_fits(stocked: RunningServer, copied: Path) -> None:
    say_vocabulary(copied, 100_000)
    body = body_of(
        copied, dataset="many.jsonl", packing=True, **ALL_LOGITS
    )  # fills the context, so that the sequences are long
    (problem,) = problems_of(stocked, {**body, "per_device_train_batch_size": 4096})
    assert problem["field"] == "per_device_train_batch_size"
    largest = int(problem["remedy"].split('"per_device_train_batch_size": ')[1].split(";")[0])
    assert 0 < largest < 4096
    fits = {**body, "per_device_train_batch_size": max(1, largest * 9 // 10)}  # what is free changes meanwhile
    assert problems_of(stocked, fits) == []


def test_a_few_packed_records_are_no_longer_than_all_together(stocked: RunningServer, copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 131_072}))
    told = stocked.post("/api/preflight", body_of(copied, packing=True)).json()
    assert (told["ok"], told["memory"]["sequence_length"] < 1000) == (True, True), told


def test_a_sequence_that_is_too_long_is_refused_with_the_longest_that_fits(
    stocked: RunningServer, copied: Path
) -> None:
    available = stocked.post("/api/preflight", body_of(copied)).json()["memory"]["available_bytes"]
    say_vocabulary(copied, available // 20 // 128)
    body = body_of(copied, dataset="many.jsonl", packing=True, **ALL_LOGITS)
    (problem,) = problems_of(stocked, body)
    assert problem["field"] == "max_seq_length"
    longest = int(problem["remedy"].split('"max_seq_length": ')[1].split(" ")[0])
    assert 32 <= longest < 128
    fits = {**body, "max_seq_length": longest * 9 // 10, "per_device_train_batch_size": 1}
    assert problems_of(stocked, fits) == []


def test_a_training_that_writes_more_than_is_free_is_refused_with_what_would_fit(
    stocked: RunningServer, copied: Path
) -> None:
    body = body_of(copied, save_steps=1, max_steps=100_000_000, save_total_limit=None)
    (problem,) = problems_of(stocked, body)
    assert problem["field"] == "save_total_limit"
    limit = int(problem["remedy"].split('"save_total_limit": ')[1].split(".")[0])
    assert limit > 0
    assert problems_of(stocked, {**body, "save_total_limit": min(1_000_000, limit * 9 // 10)}) == []


def test_a_model_whose_sizes_are_not_told_is_let_through(stocked: RunningServer, copied: Path) -> None:
    (copied / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    told = stocked.post("/api/preflight", body_of(copied)).json()
    assert told["ok"]
    assert told["memory"]["required_bytes"] is None
    assert "not known" in told["memory"]["note"]


def test_the_built_in_model_is_known_before_it_is_built(stocked: RunningServer) -> None:
    told = stocked.post("/api/preflight", body_of("smollm2-135m-instruct")).json()
    assert told["memory"]["weights_bytes"] > 134_515_008
    assert told["memory"]["largest_sequence_length"] is None or told["memory"]["largest_sequence_length"] <= 8192


def turns_of(*turns: tuple[str, str]) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": said} for role, said in turns]}).encode() + b"\n"


SAID = (("user", "Hello"), ("assistant", "Hi"))
REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_turns_that_the_chat_template_refuses_are_named_by_their_line(stocked: RunningServer, copied: Path) -> None:
    records = turns_of(*SAID) * 2 + turns_of(("system", "Be brief."), *SAID)
    stocked.upload(records, filename="turns.jsonl").raise_for_status()
    body = body_of(copied, dataset="turns.jsonl")
    template = copied / "chat_template.jinja"
    template.write_text(REFUSES_SYSTEM + template.read_text())
    (problem,) = problems_of(stocked, body)
    assert problem["field"] == "model_name"
    assert "Line 3 of the dataset" in problem["remedy"]
    assert "System role not supported" in problem["remedy"]


def test_conversations_may_end_early_by_records_of_another_dataset(stocked: RunningServer, tiny: Path) -> None:
    judged = {"validation_dataset": "talks.jsonl", "early_stopping_patience": 2}
    assert problems_of(stocked, body_of(tiny, dataset="talks.jsonl", **judged)) == []
    assert problems_of(stocked, body_of(tiny, dataset=[{"dataset": "talks.jsonl", "weight": 2}], **judged)) == []


def test_a_token_that_the_model_has_no_embedding_of_is_refused(stocked: RunningServer, copied: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copied)
    tokenizer.add_tokens(["<new>"], special_tokens=True)
    tokenizer.save_pretrained(copied)
    stocked.upload(b'{"input": "Why <new>?", "output": "So."}\n' * 3, filename="new.jsonl").raise_for_status()
    (problem,) = problems_of(stocked, body_of(copied, dataset="new.jsonl"))
    assert problem["field"] == "model_name"
    assert "Line 1 of the dataset has the token '<new>'" in problem["remedy"]


def test_a_module_that_is_not_there_to_be_trained_whole_is_refused(stocked: RunningServer, tiny: Path) -> None:
    for name, says in (("head", "embed_tokens"), ("score", "lm_head")):  # by the weights' names, and by a trial
        (problem,) = problems_of(stocked, body_of(tiny, modules_to_save=[name]))
        assert problem["field"] == "modules_to_save"
        assert says in problem["remedy"]
    assert problems_of(stocked, body_of(tiny, modules_to_save=["lm_head"])) == []


def test_a_pattern_that_no_layer_has_is_refused(stocked: RunningServer, tiny: Path) -> None:
    (problem,) = problems_of(stocked, body_of(tiny, target_modules="c_attn.*"))
    assert problem["field"] == "target_modules"
    assert "not found" in problem["remedy"]


def test_too_few_records_for_what_is_asked_are_refused(stocked: RunningServer, tiny: Path) -> None:
    stocked.upload(RECORDS.splitlines(keepends=True)[0], filename="one.jsonl").raise_for_status()
    (problem,) = problems_of(stocked, body_of(tiny, dataset="one.jsonl", eval_split=0.5))
    assert (problem["field"], "one of 1 records" in problem["message"]) == ("eval_split", True)
    assert problems_of(stocked, body_of(tiny, dataset="one.jsonl")) == []
    preference = b'{"prompt": "Why?", "chosen": "So.", "rejected": "No."}\n'
    stocked.upload(preference * 3, filename="prefer.jsonl").raise_for_status()
    policy = {"dataset": "prefer.jsonl", "strategy": "rlhf", "max_steps": 3, "max_completion_length": 8}
    (problem,) = problems_of(stocked, body_of(tiny, **policy, per_device_train_batch_size=16))
    assert (problem["field"], "fill no step" in problem["message"]) == ("per_device_train_batch_size", True)
    assert problems_of(stocked, body_of(tiny, **policy, per_device_train_batch_size=8)) == []
    (problem,) = problems_of(stocked, body_of(tiny, **{**policy, "max_completion_length": 256}))
    assert (problem["field"], "256 tokens" in problem["remedy"]) == ("max_completion_length", True)
    (problem,) = problems_of(stocked, body_of(tiny, **policy, reward_model=str(tiny)))
    assert (problem["field"], "no reward model" in problem["message"]) == ("reward_model", True)
