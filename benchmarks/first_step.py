"""From the request to the first step: `python benchmarks/first_step.py [--rounds 3]`, SmolLM2-135M, LoRA, the CPU.

Side by side in one run, interleaved: a start_training on a server whose trainer stands ready, the same on one that
keeps none, and `python` of the bare trl script. Ours ends with the first step's record in the log.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from figures import Figure, Program, Rounds

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
LONGEST_SECONDS = 280
_READY = "trainer_stands_ready"
_NOTE = (
    "From `POST /api/start_training` to the record of the first step, on a server that was just started; beside "
    "`python` of the trl script, from its start to the callback of its first step, as nice as a trainer is. "
    "SmolLM2-135M in fp32, LoRA r 8, batch 2 x 128, on the CPU. "
)
_SCRIPT = "the bare trl script"
WARM = Figure(
    name="Request to first step, of a trainer that stands by / bare trl",
    unit="s",
    yardstick=_SCRIPT,
    at_most=0.25,
    note=f"{_NOTE}The libraries were imported before.",
)
COLD = Figure(
    name="Request to first step, with nothing started ahead / bare trl",
    unit="s",
    yardstick=_SCRIPT,
    at_most=1,
    note=f"{_NOTE}With `--cold`.",
)


def _record(number: int) -> dict[str, str]:
    words = " ".join(WORDS[(number + place) % len(WORDS)] for place in range(WORDS_EACH))
    return {"input": f"What follows {number}?", "output": f"{words}."}


def _records(folder: Path) -> Path:
    path = folder / "records.jsonl"
    path.write_text("".join(json.dumps(_record(number)) + "\n" for number in range(RECORDS)))
    return path


def bare(folder: Path) -> float:
    """The script."""
    script = folder / "bare.py"
    script.write_text(BARE)
    command = ["nice", "-n", "10", sys.executable, str(script), str(MODEL), str(_records(folder)), str(folder / "out")]
    began = time.time()
    ended = subprocess.run(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(ended.stderr[-2000:])
    return float(ended.stdout.split("first step at ")[1].split()[0]) - began


def warm(folder: Path) -> float:
    """A trainer stands by."""
    return _first_step(folder)


def cold(folder: Path) -> float:
    """Nothing is started ahead."""
    return _first_step(folder, "--cold")


def _first_step(folder: Path, *flags: str) -> float:
    records, log = _records(folder), folder / "log"
    command = [sys.executable, "-m", "modelforge", "serve", "--port", "0", "--data-dir", str(folder / "data"), *flags]
    with log.open("w") as stderr:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        url = (server.stdout.readline() if server.stdout else "").split(" listens on ")[1].split()[0]
        with records.open("rb") as file:
            _answer(requests.post(f"{url}/api/upload_dataset", files={"file": file}, timeout=60))
        if not flags:
            _wait(lambda: _READY in log.read_text(), "no trainer stands ready")
        asked = {
            "task": "text-generation",
            "model_name": str(MODEL),
            "dataset": records.name,
            "max_seq_length": 128,
            "lora_r": 8,
            "lora_alpha": 16,
            "per_device_train_batch_size": 2,
            "max_steps": 2,
        }
        began = time.time()
        job = _answer(requests.post(f"{url}/api/start_training", json=asked, timeout=60))["job_id"]
        events: list[dict[str, Any]] = []

        def ended() -> bool:
            events[:] = _answer(requests.get(f"{url}/api/events?stream={job}", timeout=60))["events"]
            return any(event["type"] in {"TrainingCompleted", "TrainingFailed"} for event in events)

        _wait(ended, "the job does not end")
        first = next((event for event in events if event["type"] == "MetricsLogged"), None)
        if first is None:
            raise SystemExit(f"the job made no step: {events[-1]}")
        return float(first["at"]) / 1e6 - began
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def _answer(response: requests.Response) -> dict[str, Any]:
    if not response.ok:
        raise SystemExit(response.text)
    return dict(response.json())


def _wait(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit(otherwise)
        time.sleep(0.25)


def measure(rounds: Rounds) -> None:
    """The three in turn."""
    if not MODEL.is_dir():
        raise SystemExit(f"{MODEL} is not there: `modelforge demo` fetches it.")
    times = rounds.interleave(warm, cold, bare)
    rounds.tell(WARM, times[0], times[2])
    rounds.tell(COLD, times[1], times[2])


PROGRAM = Program(__doc__, measure, WARM, COLD)

if __name__ == "__main__":
    PROGRAM.main()
