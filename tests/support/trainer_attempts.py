"""Real attempts: trainer processes on tiny models, and what they said."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, assert_never

import msgspec

from support.warm_process import WarmProcess, start_process
from trainer_entry import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DIRECT = ("-m", "trainer_entry.train")
EVALUATION = ("-m", "trainer_entry.evaluate")
BY_ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1", "--cpu"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"),
    *DIRECT,
)
IN_TWO = (  # as the server starts them; with "--cpu" in its place accelerate would start one
    *("-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1", "--multi_gpu"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"),
    *("--main_process_port", "0"),
    *DIRECT,
)
FORKED_IN_TWO = ("-m", "support.forked_pair")
_LIBRARIES = (
    *("torch", "datasets", "transformers", "peft", "accelerate", "trl", "bitsandbytes"),
    *("trainer_entry.runtime.attempt", "trainer_entry.runtime.environment", "trainer_entry.inference.answering"),
    *("trainer_entry.providers.huggingface", "trainer_entry.providers.precision"),
    *("trainer_entry.tasks.text_generation", "trainer_entry.tasks.summarization"),
    *("trainer_entry.tasks.question_answering", "trainer_entry.tasks.preferences"),
    *("trainer_entry.strategies.sft", "trainer_entry.strategies.dpo", "trainer_entry.strategies.rlhf"),
    "trainer_entry.strategies.reward_model",
    *("trainer_entry.training.defaults", "trainer_entry.training.arguments", "trainer_entry.training.trainer"),
    *("trainer_entry.training.loop", "trainer_entry.training.callback", "trainer_entry.training.outcome"),
    *("trainer_entry.artifacts.save", "trainer_entry.artifacts.merge", "trainer_entry.artifacts.model_card"),
)
_DECODER = msgspec.json.Decoder(wire.AnyTrainerMessage)
MessageType = TypeVar("MessageType", bound=wire.TrainerMessage)


def write_dataset(path: Path, records: list[dict[str, Any]]) -> wire.DatasetFile:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return wire.DatasetFile(
        filename=path.name,
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        format=format_of(records[0]),
        num_examples=len(records),
    )


def format_of(record: dict[str, Any]) -> wire.DatasetFormat:
    """The format that a record's fields show."""
    match record:
        case {"messages": _}:
            return "messages"
        case {"conversations": _}:
            return "conversations"
        case {"completion": _}:
            return "prompt_completion"
        case {"instruction": _}:
            return "alpaca"
        case {"text": _}:
            return "text"
        case {"chosen": _}:
            return "preferences"
        case {"prompt": _}:
            return "prompts"
        case {"answers": _}:
            return "squad"
        case {"context": _}:
            return "question_answer"
        case {"document": _}:
            return "document_summary"
        case _:
            return "input_output"


def job_of(parameters: wire.TrainingParameters, **fields: Any) -> wire.JobSpec:
    """A job as the trainer is given it; `fields` are those that matter."""
    dataset = wire.DatasetFile(filename="", path="", sha256="", format="input_output", num_examples=0)
    given: dict[str, Any] = {
        "task": "text-generation",
        "strategy": "sft",
        "provider": "huggingface",
        "model_path": "",
        "dataset": dataset,
        "output_dir": "",
        "checkpoint_dir": "",
        **fields,
    }
    return wire.JobSpec(
        job_id="train_000001",
        model_name="tiny",
        parameters=parameters,
        output_name="my-tiny-finetuned",
        **given,
    )


def questions(count: int) -> list[dict[str, Any]]:
    """Questions with answers of unequal lengths."""
    return [{"input": f"What is {i}?", "output": f"It is {i}, and seven times {7 * i}{', or so' * (i * i % 7)}."}
            for i in range(count)]  # fmt: skip


@functools.cache
def warm_trainer(provider: wire.Provider) -> WarmProcess:
    """The process that the trainers of a provider are forked from; unsloth changes the libraries as it is imported."""
    variables = {
        "HF_HUB_DISABLE_TELEMETRY": "1",  # this and the next as trainer_entry.train sets them before its imports
        "TOKENIZERS_PARALLELISM": "false",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a thread of pyarrow's allocator
    }
    match provider:
        case "huggingface":
            return WarmProcess(_LIBRARIES, child_environment(), **variables)
        case "unsloth":
            variables |= {"UNSLOTH_DISABLE_STATISTICS": "1", "UNSLOTH_COMPILE_LOCATION": tempfile.mkdtemp()}
            return WarmProcess(("unsloth", *_LIBRARIES), child_environment(), **variables)
        case _:
            assert_never(provider)


class Attempt:
    """A trainer's process. Its stdout is a file opened for appending, as the shim opens it.

    It is forked from a process that has imported the libraries (support.warm_process), unless it is `cold`: a started
    one, for a test of how a trainer starts or of what it does until its libraries are imported. Those by a launcher
    and with an environment of their own are started too.
    """

    def __init__(
        self,
        folder: Path,
        model: Path | str,
        dataset: wire.DatasetFile,
        *,
        strategy: wire.Strategy = "sft",
        task: wire.Task = "text-generation",
        provider: wire.Provider = "huggingface",
        reward_model_path: str | None = None,
        adapter: wire.EarlierAdapter | None = None,
        validation: wire.DatasetFile | None = None,
        work: wire.Evaluate | None = None,
        grace_seconds: float = 120.0,
        resume_from: str | None = None,
        tokenized: str | None = None,
        checkpoint_dir: Path | None = None,
        launcher: tuple[str, ...] = DIRECT,
        environment: Mapping[str, str] | None = None,
        cold: bool = False,
        **parameters: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        job = job_of(
            msgspec.convert(parameters, wire.TrainingParameters),
            task=task,
            strategy=strategy,
            provider=provider,
            reward_model_path=reward_model_path,
            adapter=adapter,
            validation=validation,
            work=work,
            grace_seconds=grace_seconds,
            model_path=str(model),
            dataset=dataset,
            output_dir=str(folder / "output"),
            checkpoint_dir=str(checkpoint_dir or folder / "checkpoints"),
        )
        spec = wire.AttemptSpec(
            job=job,
            attempt=3,
            token="ours",  # noqa: S106 - no secret
            cpu_threads=1,
            resume_from=resume_from,
            tokenized=tokenized,
        )
        (folder / "spec.json").write_bytes(msgspec.json.encode(spec))
        self.folder = folder
        self.output = folder / "output"
        self._spool = folder / "stdout.jsonl"
        self._log = folder / "stderr.log"
        variables = child_environment() | dict(environment or {})
        with self._spool.open("ab") as stdout, self._log.open("ab") as stderr:
            self.process = start_process(
                [sys.executable, *launcher, str(folder)],
                variables,
                warm=None
                if cold or launcher not in {DIRECT, EVALUATION, FORKED_IN_TWO}
                else functools.partial(warm_trainer, provider),
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
            )

    def wait(self) -> int:
        try:
            return self.process.wait(timeout=150)
        finally:
            self.process.kill()

    def wait_for(self, condition: Callable[[list[wire.AnyTrainerMessage]], bool]) -> None:
        while not condition(self.messages()):
            assert self.process.poll() is None, self.stderr()
            time.sleep(0.02)

    def messages(self) -> list[wire.AnyTrainerMessage]:
        whole = self._spool.read_bytes().rpartition(b"\n")[0]
        return [_DECODER.decode(line) for line in whole.splitlines()]

    def of_type(self, message_type: type[MessageType]) -> list[MessageType]:
        return [message for message in self.messages() if isinstance(message, message_type)]

    def one(self, message_type: type[MessageType]) -> MessageType:
        found = self.of_type(message_type)
        assert len(found) == 1, (found, self.stderr())
        return found[0]

    def stderr(self) -> str:
        return self._log.read_text()


def child_environment() -> dict[str, str]:
    """Offline, on one thread, and blind to a GPU."""
    roots = (Path(wire.__file__).parents[2], Path(__file__).parents[1])  # the second has support.forked_pair
    return dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(str(root) for root in roots),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "CUDA_VISIBLE_DEVICES": "",
    }
