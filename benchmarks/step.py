"""A step of a training through the service, beside the same one by bare TRL: `python benchmarks/step.py [--quick]`.

SmolLM2-135M in 32 bits on the CPU, an adapter of rank 8 on all linear layers, batches of 2 x 128 tokens each of
which carries loss; 60 steps. A job is sent to a real server; TRL is a script of its own, with the same settings and
nothing else, and once more as TRL does it unless it is told otherwise: with gradient checkpointing. The model has to be
on this machine already. `--llama-factory PYTHON`: LLaMA-Factory too, by an interpreter that has it.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from figures import Figure, Program, Rounds
from gpu.bare_order import BareOrder, BareStep
from gpu.records import long_texts
from msgspec import Struct
from server_process import served

from modelforge.admission.estimate.remote_model import built_in_folder
from modelforge.client import Client
from modelforge.machine.devices import cpu_count
from trainer_entry import wire

LENGTH, BATCH, RANK, ALPHA, RATE, SEED = 128, 2, 8, 16, 2e-4, 7
_WARM_UP = 3
_MOST_AS_IT_COMES = 20
_NICENESS = 10
_NOTE = (
    "SmolLM2-135M in fp32 on the CPU, LoRA of rank 8 on all linear layers, 2 x 128 tokens, 60 steps; the median step "
    "after the first three, as a job of a real server and by a script of its own."
)
STEP = Figure(name="A step of a LoRA job / bare TRL", unit="s", yardstick="bare TRL", at_most=0.70, note=_NOTE)
AS_IT_COMES = Figure(
    name="The same / TRL as it comes, with gradient checkpointing",
    unit="s",
    yardstick="TRL as it comes",
    note=f"{_NOTE} Of TRL as it comes, {_MOST_AS_IT_COMES} steps.",
)
FACTORY = Figure(
    name="The same / LLaMA-Factory in 32 bits",
    unit="s",
    yardstick="LLaMA-Factory",
    at_most=1,
    note=f"{_NOTE} LLaMA-Factory 0.9.5 takes frozen weights in the type that the model's configuration names, which is "
    "bfloat16: then its step is another, and its losses too. Here it is given one that names float32.",
)
SAME = Figure(
    name="Losses of these steps: the largest relative difference to bare TRL's", unit="", at_most=1e-5, note=_NOTE
)

_FACTORY_SCRIPT = """
import json, sys, time
from llamafactory.train.tuner import run_exp
from transformers import TrainerCallback
order, steps = json.load(open(sys.argv[1])), []
class Notes(TrainerCallback):
    def on_train_begin(self, *_, **__): self.began = time.monotonic()
    def on_log(self, args, state, control, logs=None, **_):
        if "loss" in (logs or {}):
            seconds = time.monotonic() - self.began
            steps.append({"step": state.global_step, "loss": float(logs["loss"]), "seconds": seconds})
run_exp(order["arguments"], [Notes()])
json.dump(steps, open(order["output"], "w"))
"""


class Run(Struct, frozen=True):
    """One training: the loss of each step, and the seconds of the median one."""

    losses: list[float]
    seconds: float

    @classmethod
    def of(cls, steps: list[tuple[float, float]]) -> "Run":
        """Of the losses of steps and the seconds until their ends."""
        ends = [end for _, end in steps]
        taken = [later - earlier for earlier, later in zip(ends[_WARM_UP - 1 :], ends[_WARM_UP:], strict=False)]
        return cls([loss for loss, _ in steps], statistics.median(taken))

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s a step"


def main(rounds: Rounds) -> None:
    """Train by each in turn, and compare."""
    steps = rounds.options.steps or (8 if rounds.quick else 60)
    count = rounds.options.rounds or 1
    sides: list[Callable[[Path], Run]] = [
        _named(partial(serve, steps), "service"),
        _named(partial(bare, steps, recomputes=False), "bare TRL"),
    ]
    if not rounds.quick:
        sides.append(_named(partial(bare, min(steps, _MOST_AS_IT_COMES), recomputes=True), "TRL as it comes"))
    if rounds.options.llama_factory:
        sides.append(_named(partial(factory, steps, rounds.options.llama_factory), "LLaMA-Factory"))
    ours, theirs, *others = rounds.interleave(*sides, rounds=count)
    seconds = [[run.seconds for run in runs] for runs in (ours, theirs, *others)]
    rounds.tell(STEP, seconds[0], seconds[1])
    rounds.tell(SAME, [_apart(one, other) for one, other in zip(ours, theirs, strict=True)])
    if not rounds.quick:
        rounds.tell(AS_IT_COMES, seconds[0], seconds[2])
    if rounds.options.llama_factory:
        rounds.tell(FACTORY, seconds[0], seconds[-1])


def serve(steps: int, folder: Path) -> Run:
    """As a job of a server."""
    data = _write(folder)
    with served(folder / "data") as server, Client(server.url, token=server.key) as client:
        dataset = client.upload_dataset(data)
        job = client.start_training(
            task="text-generation",
            model_name=wire.BUILT_IN_MODEL,
            dataset=dataset.filename,
            max_steps=steps,
            max_seq_length=LENGTH,
            per_device_train_batch_size=BATCH,
            lora_r=RANK,
            lora_alpha=ALPHA,
            learning_rate=RATE,
            warmup_ratio=0.0,
            save_steps=10 * steps,
            seed=SEED,
        )
        for _ in client.follow_job(job.job_id):
            pass
        status = client.get_job(job.job_id)
        if status.status != "completed":
            raise SystemExit(f"The job is {status.status}: {status.error}")
        metrics = [metric for metric in client.get_metrics(job.job_id).metrics if metric.loss is not None]
    return Run.of([(metric.loss or 0.0, metric.elapsed_seconds) for metric in metrics])


def bare(steps: int, folder: Path, *, recomputes: bool) -> Run:
    """As a script that TRL's guide would have."""
    order = BareOrder(
        strategy="sft",
        provider="huggingface",
        model=str(built_in_folder()),
        dataset=str(_write(folder)),
        output=str(folder / "steps.json"),
        length=LENGTH,
        settings={
            "per_device_train_batch_size": BATCH,
            "max_steps": steps,
            "learning_rate": RATE,
            "logging_steps": 1,
            "seed": SEED,
            "bf16": False,
        },
        adapter={"r": RANK, "lora_alpha": ALPHA, "lora_dropout": 0.0, "target_modules": "all-linear"},
        recomputes=recomputes,
    )
    (folder / "order.json").write_bytes(msgspec.json.encode(order))
    _run([sys.executable, "-m", "gpu.bare", str(folder / "order.json")], folder)
    return _steps_of(Path(order.output))


def factory(steps: int, python: str, folder: Path) -> Run:
    """As a training by LLaMA-Factory: text as it stands, and no gradient checkpointing either."""
    _write(folder).rename(folder / "texts.jsonl")
    about = {"texts": {"file_name": "texts.jsonl", "columns": {"prompt": "text"}}}
    (folder / "dataset_info.json").write_bytes(msgspec.json.encode(about))
    arguments: dict[str, Any] = {
        "stage": "pt",
        "do_train": True,
        "model_name_or_path": str(_in_32_bits(folder / "model")),
        "dataset": "texts",
        "dataset_dir": str(folder),
        "packing": False,
        "finetuning_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_target": "all",
        "cutoff_len": LENGTH,
        "output_dir": str(folder / "output"),
        "per_device_train_batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": RATE,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "seed": SEED,
        "use_cpu": True,
        "disable_gradient_checkpointing": True,
    }
    order = {"arguments": arguments, "output": str(folder / "steps.json")}
    (folder / "order.json").write_bytes(msgspec.json.encode(order))
    _run([python, "-c", _FACTORY_SCRIPT, str(folder / "order.json")], folder)
    return _steps_of(folder / "steps.json")


def _in_32_bits(folder: Path) -> Path:
    """The model, of a configuration that names float32."""
    folder.mkdir()
    for file in built_in_folder().iterdir():
        if file.name != "config.json":
            (folder / file.name).symlink_to(file)
    config = msgspec.json.decode((built_in_folder() / "config.json").read_bytes())
    (folder / "config.json").write_bytes(msgspec.json.encode(config | {"dtype": "float32", "torch_dtype": "float32"}))
    return folder


def _write(folder: Path) -> Path:
    """Texts that are longer than is read of them."""
    path = folder / "records.jsonl"
    texts = [{"text": f"{one['input']}: {one['output']}"} for one in long_texts(64, LENGTH)]
    path.write_bytes(b"".join(msgspec.json.encode(text) + b"\n" for text in texts))
    return path


def _run(command: list[str], folder: Path) -> None:
    """At the priority of a job's trainer, so that a busy machine slows all alike, and with as many threads."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)]) if command[0] == sys.executable else ""
    variables = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "DISABLE_VERSION_CHECK": "1"}
    variables["OMP_NUM_THREADS"] = str(cpu_count())
    niced = ["nice", "-n", str(_NICENESS), *command]
    done = subprocess.run(niced, env=variables, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-2000:]}")


def _steps_of(path: Path) -> Run:
    return Run.of([(step.loss, step.seconds) for step in msgspec.json.decode(path.read_bytes(), type=list[BareStep])])


def _apart(one: Run, other: Run) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(one.losses, other.losses, strict=True))


def _named(side: Callable[[Path], Run], name: str) -> Callable[[Path], Run]:
    setattr(side, "__name__", name)  # noqa: B010 - what the lines of the rounds call it
    return side


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, help="of each training; 60, or 8 with --quick")
    parser.add_argument("--llama-factory", metavar="PYTHON", help="an interpreter that has llamafactory")


PROGRAM = Program(__doc__, main, STEP, SAME, AS_IT_COMES, FACTORY, options=_options)

if __name__ == "__main__":
    PROGRAM.main()
