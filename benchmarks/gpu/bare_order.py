"""What a bare library is told to train, and what it says of it: the files between `gpu.bare` and the rest."""

from typing import Any, Literal

from msgspec import Struct

BareStrategy = Literal["sft", "dpo"]


class BareOrder(Struct, frozen=True, kw_only=True):
    """One training by a bare library. `settings`: by the names of TrainingArguments; `adapter`: of LoraConfig.

    `recomputes`: with gradient checkpointing, as trl has it unless it is told otherwise.
    """

    strategy: BareStrategy
    provider: Literal["huggingface", "unsloth"]
    model: str
    dataset: str
    output: str
    length: int
    settings: dict[str, Any]
    adapter: dict[str, Any]
    beta: float = 0.1
    recomputes: bool = False


class BareStep(Struct, frozen=True, kw_only=True):
    """One logged step. `seconds`: of training until then."""

    step: int
    loss: float
    seconds: float
