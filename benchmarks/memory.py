"""Peaks of real trainings beside what preflight reckons: `python benchmarks/memory.py [--fitted] [--unseen] [ONLY]`.

On this machine's own device, a case after another, a few steps each. The formulas were fitted on the cases that
`--fitted` runs; `--unseen` has the others, of which a few are run when nothing is asked for. Text is learned by the
built-in model; a summary by a model of T5-small's sizes and answers in a context by one of BERT-base's, with random
weights and its tokenizer.
ONLY: a part of a case's name.
"""

import argparse
import asyncio
import hashlib
import itertools
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
from figures import Figure, Program, Rounds
from msgspec import Struct

from modelforge.admission.estimate.fit import estimate_training
from modelforge.supervisor.attempt_environment import memory_settings
from trainer_entry import wire

STEPS = 2
_DECODER = msgspec.json.Decoder(wire.AnyTrainerMessage)


class Case(Struct, frozen=True, kw_only=True):
    """One training: `length` tokens in each of `batch` sequences, of rlhf less than that; `answer`: in a summary."""

    task: wire.Task = "text-generation"
    strategy: wire.Strategy
    batch: int
    length: int
    answer: int | None = None
    parameters: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """All of it, in a line."""
        others = " ".join(f"{name}={value}" for name, value in self.parameters.items())
        answer = "" if self.answer is None else f"->{self.answer}"
        task = "" if self.task == "text-generation" else f"{self.task} "
        return f"{task}{self.strategy} {self.batch}x{self.length}{answer} {others}".strip()


def _case(
    strategy: wire.Strategy,
    batch: int,
    length: int,
    task: wire.Task = "text-generation",
    answer: int | None = None,
    **parameters: Any,
) -> Case:
    return Case(task=task, strategy=strategy, batch=batch, length=length, answer=answer, parameters=parameters)


FITTED = (
    _case("sft", 1, 128),
    _case("sft", 2, 256),
    _case("sft", 2, 384, gradient_checkpointing=True),
    _case("sft", 1, 256, use_lora=False),
    _case("sft", 1, 256, use_lora=False, weight_dtype="bfloat16", optim="adamw_8bit"),
    _case("qlora", 2, 256),
    _case("qlora", 2, 256, bf16=True),
    _case("dpo", 1, 256),
    _case("rlhf", 4, 192, max_completion_length=16),
    _case("sft", 4, 256, "extractive-question-answering"),
    _case("sft", 4, 256, "summarization", answer=64),
    _case("sft", 4, 1024, "summarization", answer=256),
    _case("qlora", 4, 192, gradient_checkpointing=True),
)
UNSEEN = (
    _case("sft", 1, 512),
    _case("sft", 4, 192),
    _case("sft", 1, 768, gradient_checkpointing=True),
    _case("sft", 2, 256, lora_r=64),
    _case("sft", 2, 256, use_dora=True),
    _case("sft", 1, 256, modules_to_save=["embed_tokens"]),
    _case("sft", 2, 256, bf16=True),
    _case("sft", 2, 256, use_lora=False),
    _case("sft", 2, 256, use_lora=False, optim="adafactor", gradient_checkpointing=True),
    _case("sft", 1, 384, use_lora=False, optim="sgd"),
    _case("sft", 2, 256, use_lora=False, weight_dtype="bfloat16", optim="adamw_8bit"),
    _case("qlora", 1, 512),
    _case("qlora", 2, 256, gradient_checkpointing=True, bf16=True),
    _case("qlora", 1, 640, gradient_checkpointing=True, use_8bit=True),
    _case("qlora", 1, 384, bf16=True),
    _case("dpo", 1, 384),
    _case("dpo", 2, 192, gradient_checkpointing=True),
    _case("dpo", 1, 192, use_lora=False),
    _case("rlhf", 4, 256, max_completion_length=32, gradient_checkpointing=True),
    _case("rlhf", 4, 128, max_completion_length=64, num_generations=2),
    _case("rlhf", 4, 112, max_completion_length=16),
    _case("sft", 2, 256, eval_split=0.34),
    _case("sft", 2, 256, packing=True),
    _case("sft", 4, 256, "summarization"),
    _case("sft", 2, 768, "summarization", answer=128, use_lora=False),
    _case("sft", 1, 1024, "summarization", answer=512),
    _case("sft", 2, 512, "summarization", answer=32, gradient_checkpointing=True),
    _case("sft", 8, 256, "extractive-question-answering", gradient_checkpointing=True),
    _case("sft", 4, 320, gradient_checkpointing=True),
    _case("sft", 4, 256, "summarization", use_lora=False),
    _case("sft", 4, 256, "extractive-question-answering", use_lora=False),
)


RECKONED = Figure(
    name="Memory that preflight reckons / peak of the training, where it is farthest off",
    unit="MB",
    yardstick="measured",
    at_least=0.8,
    at_most=1.25,
    note="Of a few of the cases of `benchmarks/memory.py --unseen`, the one whose ratio is farthest from 1: what "
    "preflight tells before, and the most that the trainer held.",
)
FEW = (UNSEEN[1], UNSEEN[2], UNSEEN[11])


def options(parser: argparse.ArgumentParser) -> None:
    """What else can be asked for."""
    parser.add_argument("--fitted", action="store_true", help="the cases on which the formulas were fitted")
    parser.add_argument("--unseen", action="store_true", help="all others, and not a few")
    parser.add_argument("only", nargs="?", default="", help="a part of a case's name")


def measure_cases(rounds: Rounds) -> None:
    """Measure case by case, and print a table."""
    asked = rounds.options
    cases = FITTED if asked.fitted else UNSEEN if asked.unseen or asked.only else FEW
    chosen = [case for case in cases if asked.only in case.name][: 1 if rounds.quick else None]
    if not chosen:
        raise SystemExit(f"No case has {asked.only!r} in its name.")
    print(f"{'case':<70} {'measured':>9} {'reckoned':>9} {'ratio':>6}")
    both = []
    for case in chosen:
        measured, reckoned = measure(case, rounds.folder())
        both.append((reckoned, measured))
        print(f"{case.name:<70} {measured:>6.0f} MB {reckoned:>6.0f} MB {reckoned / measured:>6.2f}", flush=True)
    reckoned, measured = max(both, key=lambda pair: abs(math.log(pair[0] / pair[1])))
    rounds.tell(RECKONED, [reckoned], [measured])


def measure(case: Case, folder: Path) -> tuple[float, float]:
    """The most that a training held, and what was reckoned before it, in 10^6 bytes."""
    parameters: dict[str, Any] = {
        "per_device_train_batch_size": case.batch,
        "max_seq_length": case.length,
        "max_steps": STEPS,
        **case.parameters,
    }
    model = _model(case, folder / "model")
    job = wire.JobSpec(
        job_id="train_000001",
        task=case.task,
        strategy=case.strategy,
        provider="huggingface",
        model_name=model,
        model_path=model,
        dataset=_dataset(case, folder),
        parameters=msgspec.convert(parameters, wire.TrainingParameters),
        output_name="measured",
        output_dir=str(folder / "output"),
        checkpoint_dir=str(folder / "checkpoints"),
    )
    fit = asyncio.run(estimate_training(job, folder, waits=False))
    attempt = wire.AttemptSpec(job=job, attempt=1, token="none", cpu_threads=1)  # noqa: S106
    (folder / "spec.json").write_bytes(msgspec.json.encode(attempt))
    command = [sys.executable, "-m", "trainer_entry.train", str(folder)]
    variables = os.environ | memory_settings(attempt)
    done = subprocess.run(command, env=variables, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{case.name}: {done.stderr.decode(errors='replace')[-2000:]}")
    messages = [_DECODER.decode(line) for line in done.stdout.splitlines()]
    steps = [message for message in messages if isinstance(message, wire.StepLogged)]
    peaks = [step.gpu_memory_mb if step.gpu_memory_mb is not None else step.memory_mb for step in steps]
    return max(peak or 0.0 for peak in peaks), (fit.memory.required_bytes or 0) / 1e6


def _model(case: Case, folder: Path) -> str:
    """The built-in model, or the folder of one that is built for the task."""
    import transformers as hf  # the training stack, which takes seconds to import

    from modelforge.admission.estimate.remote_model import built_in_folder

    if case.task == "text-generation":
        return wire.BUILT_IN_MODEL
    tokenizer: Any = hf.AutoTokenizer.from_pretrained(built_in_folder())
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model: hf.PreTrainedModel
    if case.task == "summarization":
        starts: dict[str, Any] = {"decoder_start_token_id": tokenizer.pad_token_id}
        model = hf.T5ForConditionalGeneration(hf.T5Config(**ids, **starts))
    else:
        model = hf.BertForMaskedLM(hf.BertConfig(**ids))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _dataset(case: Case, folder: Path) -> wire.DatasetFile:
    """Records of exactly `length` tokens once they are cut; those of rlhf are left out where they are longer."""
    path = folder / "records.jsonl"
    count = case.batch * (STEPS + 1)
    lines = [msgspec.json.encode(_record(case, number)) for number in itertools.islice(itertools.count(), count)]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return wire.DatasetFile(
        filename=path.name,
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        format=_format(case),
        num_examples=count,
    )


def _format(case: Case) -> wire.DatasetFormat:
    if case.task == "summarization":
        return "document_summary"
    if case.task == "extractive-question-answering":
        return "question_answer"
    return "preferences" if case.strategy in {"dpo", "rlhf"} else "input_output"


def _record(case: Case, number: int) -> dict[str, str]:
    words = "the " * case.length  # a token each
    asked = f"Say {number}. "
    if case.task == "summarization":
        return {"document": asked + words, "summary": "the " * (case.answer or case.length)}
    if case.task == "extractive-question-answering":
        return {"question": asked, "context": words[: 4 * (case.length - 16)], "answer": "the"}
    match case.strategy:
        case "sft" | "qlora":
            return {"input": asked + words[: case.length], "output": words}
        case "dpo":
            return {"prompt": asked + words[: case.length], "chosen": words, "rejected": f"No. {words}"}
        case "rlhf":
            prompt = words[: 4 * (case.length - 80)]
            return {"prompt": asked + prompt, "chosen": "the " * 16, "rejected": "No " * 16}


PROGRAM = Program(__doc__, measure_cases, RECKONED, options=options)

if __name__ == "__main__":
    PROGRAM.main()
