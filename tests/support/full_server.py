"""What a server has after some days: jobs of every end, one that runs, a queue, models, datasets; hostile names."""

import math
from pathlib import Path

from support.attempt_files import model_in, training, until_step
from support.recital import Line, evaluated, failed, printed, step, wait, write_recital
from support.running_server import RECORDS, RunningServer

MARKUP = "<img src=x onerror=\"document.title='broken into'\">"
"""Runs where a text is taken for HTML."""
BACKWARDS = "\u05d0\u05d1\u05d2 \u0627\u0644\u0628\u064a\u0627\u0646\u0627\u062a \u202e"
LONG = "n" * 190
"""With a suffix about as long as a name may be."""
HOSTILE_DATASET = "<img src=x onerror=alert(1)>.jsonl"
HOSTILE_MODEL = "<b onclick=alert(1)>"
LONG_DATASET = f"{LONG}.jsonl"
BACKWARDS_DATASET = "\u05d0\u05d1\u05d2 \u0628\u064a\u0627\u0646\u0627\u062a.jsonl"
STEPS = 60
CONTROLS = "\x1b[31mred\x1b[0m \x07 \x08"


def figures(number: int, total: int = STEPS) -> dict[str, object]:
    """A loss that falls, as far as `number` steps have brought it."""
    noise = math.sin(number * 12.9898) * 43758.5453 % 1 - 0.5
    return {
        "loss": 0.6 + 1.6 * math.exp(-4 * number / total) + 0.15 * noise,
        "learning_rate": 2e-4 * (1 - number / total),
        "grad_norm": 0.8 + 0.3 * noise,
        "tokens_per_second": 2_400 + 60 * noise,
        "memory_mb": 1_820.0,
    }


def learns(total: int = STEPS) -> list[Line]:
    said: list[Line] = [printed("Loading the model"), {"type": "phase_entered", "phase": "training"}]
    for number in range(1, total + 1):
        said.append(step(number, total, **figures(number, total)))
        if number % 20 == 0:
            said.append(evaluated(number, total, eval_loss=0.7 + 1.4 * math.exp(-4 * number / total)))
    return said


def fill(server: RunningServer, folder: Path) -> dict[str, str]:
    """Put it all there; gives the ids of the jobs by how they ended. The one that `waits` runs until it is stopped."""
    for name in ("data.jsonl", HOSTILE_DATASET, LONG_DATASET, BACKWARDS_DATASET):
        server.upload(RECORDS, filename=name).raise_for_status()
    recited = {
        "completed": learns(),
        "failed": [
            printed(f"{MARKUP} {BACKWARDS} {LONG}{LONG} {CONTROLS}"),
            step(1, STEPS, **figures(1)),
            failed("ValueError", f"{MARKUP} {BACKWARDS} {LONG}{LONG}", f"Traceback: {MARKUP}"),
        ],
        "stopped": [*learns()[:30], wait(3600)],
        "training": [*learns()[:50], printed(f"{MARKUP} {BACKWARDS} {CONTROLS}"), wait(3600)],
    }
    datasets = {
        "completed": "data.jsonl",
        "failed": HOSTILE_DATASET,
        "stopped": LONG_DATASET,
        "training": HOSTILE_DATASET,
    }
    jobs: dict[str, str] = {}
    for end, lines in recited.items():
        model = _model(folder, end, lines)
        jobs[end] = _start(server, model, f"{end}-model", datasets[end])
        if end == "stopped":
            until_step(server, jobs[end], 1)
            server.post(f"/api/jobs/{jobs[end]}/stop").raise_for_status()
        server.wait_for(jobs[end], end)
    plain = _model(folder, HOSTILE_MODEL, [])
    for number, dataset in enumerate((LONG_DATASET, BACKWARDS_DATASET), start=1):
        jobs[f"queued {number}"] = _start(server, plain, "x" * 100, dataset)
    until_step(server, jobs["training"], 40)
    return jobs


def _model(folder: Path, name: str, lines: list[Line]) -> Path:
    folder.mkdir(exist_ok=True)
    model = model_in(folder).rename(folder / name)
    if lines:
        write_recital(model, lines)
    return model


def _start(server: RunningServer, model: Path, name: str, dataset: str) -> str:
    body = training(model, name, dataset=dataset, max_steps=STEPS, queue=True, eval_split=0.2)
    answer = server.post("/api/start_training", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["job_id"])
