"""The flags that say what is to be trained, and how: those of `train` and of `preflight`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from modelforge.cli.flags import parameters_of
from modelforge.cli.named_datasets import Datasets, Validation
from trainer_entry import wire

_MODEL_FILES = ("config.json", "adapter_config.json")


@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """A training as it is typed, but for its dataset."""

    model: Annotated[
        str, Parameter(help="what to train: a hub id, a folder, the id of a trained model, or smollm2-135m-instruct")
    ]
    datasets: Datasets = None
    validation: Validation = None
    task: Annotated[wire.Task, Parameter(help="what the model is to do; the records have to fit it")] = (
        "text-generation"
    )
    strategy: Annotated[
        wire.Strategy,
        Parameter(help="how it learns: sft and qlora from answers, dpo from preferences, rlhf from rewards"),
    ] = "sft"
    provider: Annotated[wire.Provider, Parameter(help="which library loads the model")] = "huggingface"
    output_name: Annotated[str | None, Parameter(name="--name", help="what the trained model is to be called")] = None
    parameters: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            help="NAME=VALUE, a training parameter, as in --set learning_rate=2e-4; may be repeated. "
            "`modelforge help parameters` lists them",
        ),
    ] = None
    max_restarts: Annotated[int, Parameter(help="how often a training that fails begins again by itself")] = 0
    queue: Annotated[bool, Parameter(help="wait for the jobs before it, instead of giving up")] = False

    def body(self) -> dict[str, object]:
        """The request that they make.

        Raises:
            WrongUsage: a parameter is not NAME=VALUE.
        """
        body: dict[str, object] = {
            "task": self.task,
            "strategy": self.strategy,
            "provider": self.provider,
            "model_name": named_model(self.model),
            "queue": self.queue,
            **parameters_of(self.parameters or []),
        }
        if self.output_name is not None:
            body["output_name"] = self.output_name
        if self.max_restarts:
            body["max_restarts"] = self.max_restarts
        return body


TrainingAsked = Annotated[TrainingFlags, Parameter(name="*")]


def named_model(name: str) -> str:
    """A model as the server finds it: a folder here by its whole path, for the server stands in another one."""
    folder = Path(name).expanduser()
    is_model = name != wire.BUILT_IN_MODEL and any((folder / file).is_file() for file in _MODEL_FILES)
    return str(folder.resolve()) if is_model else name
