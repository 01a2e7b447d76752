"""A real adapter of a tiny model: merged, exported, and pushed to a stand-in of the hub."""

import hashlib
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_hub import TOKEN
from support.process_watch import ProcessWatch
from support.running_server import RECORDS, RunningServer, environment, modelforge, real_server
from support.tiny_model import build_tiny_model

pytestmark = [pytest.mark.training, pytest.mark.timeout(300)]
PROMPT = "question 7"
PROXY_PASSWORD = "canary-of-a-proxy"  # noqa: S105 - nobody's


class Forge:
    """A real server beside a stand-in of the hub, and an adapter that was trained there: model 1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = build_tiny_model(folder / "base")
        self.hub = folder / "hub"
        self.hub.mkdir()
        self._stand_in = subprocess.Popen(
            [sys.executable, "-m", "support.fake_hub", str(self.hub)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self._stand_in.stdout is not None
        self.hub_url = self._stand_in.stdout.readline().strip()
        self.server = self.start()
        self.server.upload(RECORDS).raise_for_status()
        job = self.server.wait_for(self.train(output_name="cook"))
        assert job["model_id"] == 1, job["error"]
        self.merged = self.work(1, "merge")

    def start(self, token: str = TOKEN) -> RunningServer:
        proxy = f"http://me:{PROXY_PASSWORD}@127.0.0.1:9"
        variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": self.hub_url, "HF_TOKEN": token}
        variables |= {"HTTP_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return real_server(self.folder, **variables, HF_HOME=str(self.folder / "hf"), HF_HUB_DISABLE_XET="1")

    def train(self, **fields: object) -> str:
        body = {
            "task": "text-generation",
            "model_name": str(self.base),
            "dataset": "data.jsonl",
            "max_steps": 30,
            "learning_rate": 0.02,
            **fields,
        }
        answer = self.server.post("/api/start_training", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def work(self, model_id: int, what: str, **body: object) -> dict[str, object]:
        """Ask for it, and wait for its end."""
        answer = self.server.post(f"/api/models/{model_id}/{what}", body)
        assert answer.status_code == 202, answer.text
        return self.server.wait_for(answer.json()["job_id"])

    def model(self, model_id: int) -> dict[str, object]:
        found: dict[str, object] = self.server.get(f"/api/models/{model_id}").json()
        return found

    def ask(self, model_id: int, **fields: object) -> str:
        body = {"prompt": PROMPT, "model_id": model_id, "max_new_tokens": 24, "temperature": 0, **fields}
        answer = self.server.post("/api/playground/generate", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["generated_text"])

    def end(self) -> None:
        self.server.end()
        self._stand_in.kill()
        self._stand_in.communicate()


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    forge = Forge(tmp_path_factory.mktemp("forge"))
    yield forge
    forge.end()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_merged_model_is_one_of_its_own_and_tells_where_it_comes_from(forge: Forge) -> None:
    job = forge.merged
    assert (job["status"], job["kind"], job["source_model_id"], job["model_id"]) == ("completed", "merge", 1, 2)
    assert (job["current_step"], job["total_steps"], job["unit"], job["progress"]) == (14, 14, "layers", 100.0)
    adapter, merged = forge.model(1), forge.model(2)
    assert (merged["name"], merged["kind"], merged["merged_from"]) == ("cook-merged", "full", 1)
    same = ("base_model", "base_path", "task", "strategy", "training_params", "metrics", "dataset")
    assert {name: merged[name] for name in same} == {name: adapter[name] for name in same}
    assert "model 1" in (Path(str(merged["path"])) / "README.md").read_text()


def test_the_merged_model_answers_like_the_adapter_and_not_like_the_base(forge: Forge) -> None:
    assert forge.ask(2) == forge.ask(1)
    assert forge.ask(2) != forge.ask(1, base_model=True)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # in peft
def test_the_merged_weights_compute_what_base_and_adapter_do(forge: Forge) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(forge.base, dtype=torch.float32)
    tokens = torch.tensor([[5, 80, 17, 200, 33]])
    with torch.no_grad():
        untrained = base(tokens).logits
        adapted = PeftModel.from_pretrained(base, str(forge.model(1)["path"])).eval()(tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(str(forge.model(2)["path"]))(tokens).logits
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
    assert (merged - untrained).abs().max() > 0.1


def test_a_training_goes_on_from_a_model_that_was_trained_here_and_tells_its_lineage(forge: Forge) -> None:
    ids = [1, 2]
    for named, fields in (("1", {"output_name": "better-cook"}), ("cook-merged", {"use_lora": False})):
        job = forge.server.wait_for(forge.train(model_name=named, max_steps=2, **fields))
        assert job["status"] == "completed", job["error"]
        ids.append(int(str(job["model_id"])))
    adapter, full = (forge.model(model_id) for model_id in ids[2:])
    lineages = [[ancestor["name"] for ancestor in one["lineage"]] for one in (adapter, full)]  # type: ignore[attr-defined]
    assert lineages == [["cook"], ["cook-merged", "cook"]]
    assert [one["base_model"] for one in (adapter, full)] == [str(forge.base), "cook-merged"]
    assert full["lineage"][-1]["base_model"] == str(forge.base)  # type: ignore[index]
    assert "cook (model 1)" in (Path(str(adapter["path"])) / "README.md").read_text()


def test_a_model_with_all_of_its_weights_is_not_merged(forge: Forge) -> None:
    answer = forge.server.post("/api/models/2/merge", {})
    assert (answer.status_code, "export or push" in answer.text) == (400, True)


def test_an_adapter_of_a_base_in_4_bits_is_merged_into_the_base_as_it_is(forge: Forge) -> None:
    job = forge.server.wait_for(forge.train(strategy="qlora", output_name="small-cook"))
    adapter = int(str(job["model_id"]))
    merged = int(str(forge.work(adapter, "merge")["model_id"]))
    assert forge.model(merged)["name"] == "small-cook-merged"
    assert forge.ask(merged) == forge.ask(adapter)
    assert "quantization_config" not in (Path(str(forge.model(merged)["path"])) / "config.json").read_text()


def test_merged_weights_have_the_type_that_was_asked_for(forge: Forge) -> None:
    from safetensors import safe_open

    job = forge.work(1, "merge", dtype="bfloat16", output_name="small")
    merged = forge.model(int(str(job["model_id"])))
    with safe_open(Path(str(merged["path"])) / "model.safetensors", "pt") as weights:  # type: ignore[no-untyped-call]
        assert {str(weights.get_slice(name).get_dtype()) for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    assert merged["name"] == "small"
    assert float(str(merged["size_mb"])) < 0.7 * float(str(forge.model(2)["size_mb"]))


def test_an_adapter_is_merged_into_no_other_weights_than_it_was_trained_on(forge: Forge) -> None:
    weights = forge.base / "model.safetensors"
    right = weights.read_bytes()
    build_tiny_model(forge.base, layers=3)
    try:
        job = forge.work(1, "merge")
    finally:
        build_tiny_model(forge.base)
    assert weights.read_bytes() == right
    assert (job["status"], job["error"]["kind"]) == ("failed", "BaseChanged")  # type: ignore[index]
    assert [path.name for path in (forge.folder / "data" / "models").glob("*.partial")] == []
    resumed = forge.server.post(f"/api/jobs/{job['job_id']}/resume")
    assert resumed.status_code == 202
    assert forge.server.wait_for(str(job["job_id"]))["status"] == "completed"


def test_an_exported_folder_is_loaded_by_transformers_and_its_hash_is_that_of_sha256sum(forge: Forge) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = forge.folder / "exported"
    job = forge.work(2, "export", path=str(place))
    assert (job["status"], job["kind"], job["model_id"]) == ("completed", "export", None)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    assert (job["unit"], job["total_steps"], job["current_step"]) == ("bytes", 2 * size, 2 * size)
    assert contents(place) == contents(Path(str(forge.model(2)["path"])))
    shell = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    sums = subprocess.run(["/bin/sh", "-c", shell], cwd=place, capture_output=True, text=True, check=True).stdout
    assert job["delivery"] == {
        "type": "exported",
        "path": str(place),
        "format": "folder",
        "files": len(contents(place)),
        "size_bytes": size,
        "sha256": sums.split()[0],
        "quantization": None,
        "warnings": [],
    }
    assert AutoModelForCausalLM.from_pretrained(place).config.num_hidden_layers == 2
    assert AutoTokenizer.from_pretrained(place).chat_template


@pytest.mark.parametrize(("model_id", "quantization"), [(1, "q8_0"), (2, None)], ids=["adapter", "merged"])
def test_a_gguf_answers_as_the_model_does(forge: Forge, model_id: int, quantization: str | None) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = {} if quantization is None else {"quantization": quantization}
    job = forge.work(model_id, "export", format="gguf", **asked)
    assert (job["status"], job["unit"], job["progress"]) == ("completed", "bytes", 100.0), job["error"]
    delivery = job["delivery"]
    assert isinstance(delivery, dict)
    place, quantization = Path(delivery["path"]), quantization or "f16"
    assert place == forge.folder / "data" / "exports" / str(job["job_id"])
    name = f"{forge.model(model_id)['name']}-{quantization}.gguf"
    assert set(contents(place)) == {name, "Modelfile", "README.md"}
    assert (delivery["format"], delivery["quantization"], delivery["warnings"]) == ("gguf", quantization, [])
    assert str(forge.base).encode() not in (place / name).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name)
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=name)
    turns = [{"role": "user", "content": PROMPT}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=24, do_sample=False)[0][ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer, skip_special_tokens=True) == forge.ask(model_id)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_is_the_same_to_the_byte_and_has_every_file(forge: Forge, kind: str, tmp_path: Path) -> None:
    first, second = (forge.work(1, "export", format=kind)["delivery"] for _ in range(2))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    archive = Path(first["path"])
    assert archive.parent == forge.folder / "data" / "exports"
    assert first["sha256"] == second["sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    if kind == "tar":
        with tarfile.open(archive) as tar:
            assert {(entry.mtime, entry.uid, entry.uname, entry.mode) for entry in tar} == {(0, 0, "", 0o644)}
            tar.extractall(tmp_path, filter="data")
    else:
        with zipfile.ZipFile(archive) as zipped:
            assert zipped.testzip() is None
            zipped.extractall(tmp_path)  # noqa: S202 - of our own making
    assert contents(tmp_path / "cook") == contents(Path(str(forge.model(1)["path"])))
    assert list(archive.parent.glob("*.partial")) == []


def test_a_pushed_model_lies_on_the_hub_byte_for_byte_and_its_card_names_no_local_file(forge: Forge) -> None:
    job = forge.work(2, "push", repo_id="me/cook")
    assert (job["status"], job["kind"]) == ("completed", "push"), job["error"]
    model = contents(Path(str(forge.model(2)["path"])))
    assert job["delivery"] == {
        "type": "pushed",
        "url": f"{forge.hub_url}/me/cook",
        "repo_id": "me/cook",
        "commit": "c0ffee",
        "private": True,
        "files": len(model),
        "size_bytes": sum(map(len, model.values())),
    }
    received = contents(forge.hub / "me" / "cook")
    head = received.pop("README.md").decode().split("---\n")[1]
    assert str(forge.base) not in head
    assert "data.jsonl" not in head
    assert "pipeline_tag: text-generation" in head
    model.pop("README.md")
    assert received == model


@pytest.mark.parametrize(("repository", "status"), [("me/again", "completed"), ("others/no", "failed")])
def test_the_token_stands_in_no_record_no_log_and_no_environment(forge: Forge, repository: str, status: str) -> None:
    secrets = (TOKEN, PROXY_PASSWORD)
    with ProcessWatch(secrets, forge.folder, forge.server.process.pid) as watch:
        job = forge.work(2, "push", repo_id=repository)
    assert job["status"] == status
    assert any("trainer_entry.after_training" in command for command in watch.looked_at)
    assert not watch.found
    answers = ("/api/events?limit=10000", "/api/jobs", f"/api/jobs/{job['job_id']}/logs", "/api/state")
    said = [forge.server.get(path).content for path in answers]
    files = [path.read_bytes() for path in (forge.folder / "data").rglob("*") if path.is_file()]
    for secret in secrets:
        assert not any(secret.encode() in content for content in (*said, *files))


def test_a_training_of_a_folder_gets_no_token_at_all(forge: Forge) -> None:
    with ProcessWatch((TOKEN, PROXY_PASSWORD), forge.folder, forge.server.process.pid) as watch:
        job_id = forge.train(max_steps=2)
        folder = forge.folder / "data" / "jobs" / job_id / "attempt-1"
        kept: set[str] = set()
        while forge.server.get(f"/api/jobs/{job_id}").json()["finished_at"] is None:
            kept |= {path.name for path in folder.glob("*")}
            time.sleep(0.02)
    assert "spec.json" in kept
    assert not kept & {"hub-token", "proxies.json"}
    assert any("trainer_entry.train" in command for command in watch.looked_at)
    assert not watch.found


def test_a_refusal_of_the_hub_is_told_with_its_remedy(forge: Forge) -> None:
    job = forge.work(2, "push", repo_id="others/cook")
    assert job["status"] == "failed"
    error = job["error"]
    assert isinstance(error, dict)
    assert error["kind"] == "HubRefused"
    assert "403" in error["message"]
    assert "don't have the rights" in error["message"]
    assert "HF_TOKEN that may" in error["message"]


def test_a_private_model_is_not_pushed_to_where_everybody_can_read_it(forge: Forge) -> None:
    job = forge.work(1, "push", repo_id="me/open")
    error = job["error"]
    assert isinstance(error, dict)
    assert '"private": false' in error["message"]
    assert not (forge.hub / "me" / "open").exists()
    assert forge.work(1, "push", repo_id="me/open", private=False)["status"] == "completed"
    assert (forge.hub / "me" / "open" / "adapter_model.safetensors").is_file()


def test_a_wrong_token_is_told_and_with_the_right_one_the_job_goes_on(forge: Forge) -> None:
    forge.server.end()
    forge.server = forge.start(token="hf_wrong")  # noqa: S106 - of no hub
    job = forge.work(1, "push", repo_id="me/later")
    error = job["error"]
    assert isinstance(error, dict)
    assert "401" in error["message"]
    assert "HF_TOKEN" in error["message"]
    forge.server.end()
    forge.server = forge.start()
    assert forge.server.post(f"/api/jobs/{job['job_id']}/resume").status_code == 202
    assert forge.server.wait_for(str(job["job_id"]))["status"] == "completed"


def test_the_log_says_which_weights_were_merged_and_is_whole(forge: Forge) -> None:
    events = forge.server.get("/api/events?stream=model:2").json()["events"]
    spec = events[0]["data"]["spec"]
    assert (spec["work"]["type"], spec["work"]["model_id"]) == ("merge", 1)
    trained = forge.server.get("/api/events?type=TrainingStarted").json()["events"][0]["data"]["report"]
    assert spec["work"]["base_revision"] == trained["base_revision"]
    told = forge.server.get(f"/api/events?stream={forge.merged['job_id']}").json()["events"]
    steps = [step for event in told if event["type"] == "MetricsLogged" for step in event["data"]["steps"]]
    assert {(step["phase"], step["loss"]) for step in steps} == {("merging", None)}
    assert steps[-1]["step"] == 14
    verified = modelforge("verify", "--data-dir", str(forge.folder / "data"))
    assert verified.returncode == 0, verified.stdout


def test_an_adapter_and_what_it_was_merged_into_are_judged_alike(forge: Forge) -> None:
    merged = forge.merged["model_id"]
    assert isinstance(merged, int)
    done = [
        forge.work(1, "evaluate", dataset="data.jsonl", batch_size=7),
        forge.work(merged, "evaluate", dataset=[{"dataset": "data.jsonl", "max_samples": 20}]),
    ]
    assert [(one["status"], one["kind"]) for one in done] == [("completed", "evaluation")] * 2, done
    (own,), (of_merged,) = (forge.model(number)["evaluations"] for number in (1, merged))  # type: ignore[misc]
    assert [one["records"] for one in (own, of_merged)] == [20, 20]
    assert (own["job_id"], own["dataset"]["filename"]) == (done[0]["job_id"], "data.jsonl")
    assert of_merged["metrics"]["eval_loss"] == pytest.approx(own["metrics"]["eval_loss"], abs=1e-4)
    shown = modelforge("models", "show", "1", url=forge.server.url).stdout
    assert f"by {done[0]['job_id']}, on data.jsonl (20 records): eval_loss {own['metrics']['eval_loss']:.4f}" in shown
    again = forge.server.post(f"/api/jobs/{done[0]['job_id']}/rerun")
    assert again.status_code == 202, again.text
    told = again.json()
    assert (told["kind"], told["validation_dataset"]["filename"]) == ("evaluation", "data.jsonl")
    forge.server.post("/api/stop_training")
    forge.server.wait_for(told["job_id"])
