"""From the request to the first step: `python benchmarks/first_step.py [ROUNDS]` (3), SmolLM2-135M, LoRA, the CPU.

Side by side in one run, interleaved: a start_training on a server whose trainer stands ready, the same on one that
keeps none, and `python` of the bare trl script. Ours ends with the first step's record in the log.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests

BARE = """
import sys, time
from datasets import load_dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

model, records, out = sys.argv[1:]

class First(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print(f"first step at {time.time()}", flush=True)
        control.should_training_stop = True

rows = load_dataset("json", data_files=records, split="train", cache_dir=out + ".cache")
rows = rows.map(lambda r: {"prompt": r["input"], "completion": r["output"]}, remove_columns=rows.column_names)
SFTTrainer(
    model=model,
    args=SFTConfig(output_dir=out, per_device_train_batch_size=2, max_length=128, max_steps=2, logging_steps=1,
                   report_to="none", save_strategy="no", use_cpu=True, activation_checkpointing=False,
                   disable_tqdm=True),
    train_dataset=rows,
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    callbacks=[First()],
).train()
"""
MODEL = Path.home() / ".cache" / "modelforge" / "smollm2-135m-instruct"
RECORDS = 64
WORDS = ("the", "cat", "and", "a", "dog", "go", "over", "to", "one", "house", "of", "some", "old", "man", "who")
WORDS_EACH = 130
LONGEST_SECONDS = 300
AIM_WARM, AIM_COLD = 0.25, 1.0
_READY = "trainer_stands_ready"


def main() -> None:
    """Measure the three in turn, and print the medians and the two ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds: dict[str, list[float]] = {"warm": [], "cold": [], "bare": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = folder / "records.jsonl"
        records.write_text("".join(json.dumps(_record(number)) + "\n" for number in range(RECORDS)))
        (folder / "bare.py").write_text(BARE)
        for number in range(rounds):
            for kind, times in seconds.items():
                took = _bare(folder, records) if kind == "bare" else _ours(folder / f"{kind}-{number}", records, kind)
                times.append(took)
                print(f"{kind:5} {took:6.2f} s", flush=True)
    for kind, times in seconds.items():
        print(f"{kind:5} {statistics.median(times):6.2f} s  ({min(times):.2f} to {max(times):.2f})")
    for kind, aim in (("warm", AIM_WARM), ("cold", AIM_COLD)):
        ratio = statistics.median(ours / bare for ours, bare in zip(seconds[kind], seconds["bare"], strict=True))
        print(f"request to first step, {kind} / bare: {ratio:.2f} (aim: at most {aim})")


def _record(number: int) -> dict[str, str]:
    words = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(WORDS_EACH))
    return {"input": f"What follows {number}?", "output": f"{words}."}


def _bare(folder: Path, records: Path) -> float:
    began = time.time()
    command = [sys.executable, str(folder / "bare.py"), str(MODEL), str(records), str(folder / f"bare-{began}")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        sys.exit(ended.stderr)
    return float(ended.stdout.split("first step at ")[1].split()[0]) - began


def _ours(folder: Path, records: Path, kind: str) -> float:
    folder.mkdir()
    command = [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(folder / "data")]
    command += ["--log-format", "json"] + (["--cold"] if kind == "cold" else [])
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        line = server.stdout.readline() if server.stdout else ""
        url = line.split(" listens on ")[1].split()[0]
        _answer(requests.post(f"{url}/api/upload_dataset", files={"file": records.open("rb")}, timeout=60))
        if kind == "warm":
            _wait(lambda: _READY in (folder / "log").read_text(), "no trainer stands ready")
        asked = {"task": "text-generation", "model_name": str(MODEL), "dataset": records.name, "lora_r": 8,
                 "lora_alpha": 16, "per_device_train_batch_size": 2, "max_seq_length": 128, "max_steps": 2}  # fmt: skip
        began = time.time()
        job = _answer(requests.post(f"{url}/api/start_training", json=asked, timeout=60))["job_id"]
        logged: list[float] = []

        def ended() -> bool:
            events = _answer(requests.get(f"{url}/api/events?stream={job}&limit=1000", timeout=60))["events"]
            logged.extend(_moment(one) for one in events if one["type"] == "MetricsLogged" and not logged)
            return any(one["type"] in {"TrainingCompleted", "TrainingFailed"} for one in events)

        _wait(ended, "the job does not end")
        return logged[0] - began
    finally:
        server.terminate()
        server.wait()


def _moment(event: dict[str, Any]) -> float:
    return float(event["at"]) / 1e6


def _answer(response: requests.Response) -> dict[str, Any]:
    if not response.ok:
        sys.exit(response.text)
    return dict(response.json())


def _wait(holds: Any, otherwise: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(otherwise)
        time.sleep(0.25)


if __name__ == "__main__":
    main()
