"""Pictures of the page: `make screenshots OUT=folder`. A server with scripted trainers tells of trainings as they go.

Each picture is taken at 1440 x 900 and at 390 x 844, light and dark, as `home-wide-dark.png`.
"""

import argparse
import contextlib
import math
import random
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from support.attempt_files import model_in, training, until_step
from support.browser import browser as command
from support.looked_at import DESK, PHONE, LookedAt
from support.recital import Line, evaluated, failed, printed, step, wait, write_recital
from support.running_server import RunningServer, scripted_server

TRAINED = Path(__file__).parents[2] / "examples" / "three_lines.jsonl"
STEPS, SEEN = 600, 430
SIZES = {"wide": DESK, "phone": PHONE}


def sft(total: int, until: int, chance: random.Random, *, floor: float = 0.9, start: float = 2.4) -> list[Line]:
    """Figures as a supervised training has them: warm-up, a loss that falls with noise, evaluations."""
    said: list[Line] = [{"type": "phase_entered", "phase": "training"}]
    said += [printed(text) for text in ("Loading the model", f"Training on 150 records, {total} steps")]
    for number in range(1, until + 1):
        share = number / total
        loss = floor + (start - floor) * math.exp(-4.2 * share) + chance.gauss(0, 0.09)
        rate = 2e-4 * min(1.0, share / 0.05) * 0.5 * (1 + math.cos(math.pi * share))
        figures = {
            "loss": round(loss, 4),
            "learning_rate": rate,
            "grad_norm": 0.7 + 1.4 * math.exp(-9 * share) + abs(chance.gauss(0, 0.12)),
            "tokens_per_second": 3120 + chance.gauss(0, 55),
            "memory_mb": 2140.0 + 40 * min(1.0, share * 6),
        }
        said.append(step(number, total, **figures))
        if number % 50 == 0:
            held_out = floor + 0.14 + (start - floor) * math.exp(-3.9 * share)
            said.append(evaluated(number, total, eval_loss=round(held_out, 4)))
            said.append(printed(f"step {number}: loss {loss:.3f}, held out {held_out:.3f}"))
    return said


def rlhf(total: int, until: int, chance: random.Random) -> list[Line]:
    """Figures of a policy that is rewarded: a reward that rises, and how far it goes from where it was."""
    said: list[Line] = [{"type": "phase_entered", "phase": "training"}]
    for number in range(1, until + 1):
        share = number / total
        reward = 2.6 * (1 - math.exp(-3.5 * share)) - 0.8 + chance.gauss(0, 0.16)
        figures: dict[str, object] = {
            "loss": 0.02 + chance.gauss(0, 0.012),
            "learning_rate": 1e-5 * (1 - share),
            "grad_norm": 0.5 + abs(chance.gauss(0, 0.1)),
            "reward": reward,
            "kl": 0.09 * (1 - math.exp(-2.4 * share)) + abs(chance.gauss(0, 0.004)),
            "completion_length": 64 - 22 * share + chance.gauss(0, 2.5),
            "rewards": {"length": reward * 0.4, "format": reward * 0.6},
        }
        said.append(step(number, total, **figures))
    return said


def fill(server: RunningServer, folder: Path) -> dict[str, str]:
    """Trainings that ended in every way, one that goes on, and two that wait; their ids."""
    chance = random.Random(7)  # noqa: S311 - noise in a picture
    server.upload(TRAINED.read_bytes(), filename="support-answers.jsonl").raise_for_status()
    memory = "CUDA out of memory: 2.4 GB more are needed, and 1.1 GB are free"
    rewarded = {"strategy": "rlhf", "reward_functions": [{"name": "length", "target": 40}, {"name": "format_tags"}]}
    trainings: list[tuple[str, str, str, list[Line]]] = [
        ("answers-first", "SmolLM2-135M", "completed", sft(STEPS, STEPS, chance, floor=1.25)),
        ("answers-large", "Qwen3-8B", "failed", [*sft(STEPS, 40, chance), failed("OutOfMemory", memory, memory)]),
        ("answers-rewarded", "Qwen3-1.7B", "completed", rlhf(STEPS, STEPS, chance)),
        ("answers-second", "SmolLM2-360M", "completed", sft(STEPS, STEPS, chance, floor=1.05)),
        ("answers-qlora", "Llama-3.2-1B", "training", [*sft(STEPS, SEEN, chance), wait(3600)]),
        ("answers-longer", "SmolLM2-1.7B", "queued", []),
        ("answers-shorter", "Qwen3-0.6B", "queued", []),
    ]
    folder.mkdir()
    jobs: dict[str, str] = {}
    for name, base, end, said in trainings:
        model = model_in(folder).rename(folder / base)
        write_recital(model, said or [wait(3600)])
        more = rewarded if "rewarded" in name else {"eval_split": 0.1}
        body = training(model, name, dataset="support-answers.jsonl", max_steps=STEPS, queue=True, **more)
        answer = server.post("/api/start_training", body)
        assert answer.ok, answer.text
        jobs[name] = str(answer.json()["job_id"])
        server.wait_for(jobs[name], end)
    until_step(server, jobs["answers-qlora"], SEEN)
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="only pictures whose name has this in it")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as ends:
        scratch = Path(ends.enter_context(tempfile.TemporaryDirectory()))
        playwright = ends.enter_context(sync_playwright())
        empty = scripted_server(scratch / "empty")
        ends.callback(empty.end)
        server = scripted_server(scratch / "data", "--stalled-seconds", "3600")
        ends.callback(server.end)
        ends.callback(server.post, "/api/stop_training")
        jobs = fill(server, scratch / "models")
        done = (jobs["answers-first"], jobs["answers-second"])
        places = {
            "home": (server, ""),
            "first": (empty, ""),
            "job": (server, f"jobs/{jobs['answers-qlora']}"),
            "rewarded": (server, f"jobs/{jobs['answers-rewarded']}"),
            "jobs": (server, "jobs"),
            "start": (server, "start"),
            "compare": (server, f"compare?jobs={','.join(done)}"),
            "models": (server, "models"),
            "datasets": (server, "datasets"),
            "audit": (server, "audit"),
            "machine": (server, "machine"),
        }
        program, *flags = command()
        browser = playwright.chromium.launch(executable_path=program, args=flags[1:])
        opened = LookedAt(browser)
        for name, (shown, place) in places.items():
            for size, pixels in SIZES.items():
                for theme in ("light", "dark"):
                    file = f"{name}-{size}-{theme}.png"
                    if options.only in file:
                        page = opened(shown, place, dark=theme == "dark", size=pixels)
                        page.screenshot(path=options.out / file)
        opened.end()
        browser.close()
    for fault in opened.faults:
        print(fault)


if __name__ == "__main__":
    main()
