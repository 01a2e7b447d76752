"""What a scripted trainer says where its model's folder has a `recital.jsonl`, whatever its job is called.

Its lines are messages of the wire without `attempt` and `seq`, which are added, or `{"type": "wait", "seconds": …}`,
or `{"type": "print", "text": …}`, which goes to the log. After the last line it finishes, unless that was `failed`.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

RECITAL = "recital.jsonl"
Line = dict[str, object]


def write_recital(model: Path, lines: Iterable[Line]) -> None:
    """Have the trainers of a model's folder say this."""
    (model / RECITAL).write_text("".join(json.dumps(line) + "\n" for line in lines))


def recital_of(model_path: str) -> Iterator[Line] | None:
    """The lines for a model's trainers, if there are some."""
    file = Path(model_path) / RECITAL
    return (json.loads(line) for line in file.read_text().splitlines()) if file.is_file() else None


def wait(seconds: float) -> Line:
    return {"type": "wait", "seconds": seconds}


def printed(text: str) -> Line:
    return {"type": "print", "text": text}


def step(number: int, total: int, **figures: object) -> Line:
    """Figures after a step; it takes a second."""
    said = {"epoch": 2 * number / total, "elapsed_seconds": float(number), "eta_seconds": float(total - number)}
    return {"type": "step", "step": number, "total_steps": total, **said, **figures}


def evaluated(number: int, total: int, **metrics: float) -> Line:
    return {"type": "evaluated", "step": number, "epoch": 2 * number / total, "metrics": metrics}


def failed(kind: str, message: str, traceback: str) -> Line:
    return {"type": "failed", "kind": kind, "message": message, "traceback": traceback}
