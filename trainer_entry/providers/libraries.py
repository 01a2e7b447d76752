"""What other libraries would import though a job has no use for it."""

import sys
from pathlib import Path

from trainer_entry.providers.model_folder import check_folder
from trainer_entry.wire import BUILT_IN_MODEL, JobSpec

_OF_TRACKERS = ("wandb", "mlflow", "trackio")
"""What trl imports wherever it is installed: one that cannot be imported would cost the training."""
_QUANTIZER = "bitsandbytes"
"""What peft imports wherever it is installed: a second of the processor, and 50 MB."""


def hide_unused(job: JobSpec) -> None:
    """Keep the libraries of a training from importing what it has no use for; before they are imported.

    Raises:
        ModelUnavailable: a file of its model must not be read.
    """
    _hide(*_OF_TRACKERS, *(() if needs_quantizer(job) else (_QUANTIZER,)))


def import_models() -> None:
    """Import what most models would import once they are loaded: a process that is started ahead has the time."""
    import peft  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401 - the built-in model, and most others
    from transformers.models.qwen2 import modeling_qwen2  # noqa: F401
    from transformers.models.qwen3 import modeling_qwen3  # noqa: F401


def hide_all() -> None:
    """The same where no quantized weights are loaded."""
    _hide(*_OF_TRACKERS, _QUANTIZER)


def _hide(*libraries: str) -> None:
    for library in libraries:
        sys.modules.setdefault(library, None)  # type: ignore[arg-type]  # which import and find_spec take for "not here"


def needs_quantizer(job: JobSpec) -> bool:
    """Whether bitsandbytes may be needed: of the models, only one that lies here is known not to need it.

    Raises:
        ModelUnavailable: a file of its model must not be read.
    """
    parameters = job.parameters
    asked = parameters.use_4bit or parameters.use_8bit or job.strategy == "qlora" or "8bit" in parameters.optim
    if asked or job.provider == "unsloth":
        return True
    models = (job.model_path, *(() if job.reward_model_path is None else (job.reward_model_path,)))
    return any(_may_be_quantized(path) for path in models)


def _may_be_quantized(path: str) -> bool:
    if path == BUILT_IN_MODEL:
        return False
    check_folder(path)
    try:
        config = (Path(path) / "config.json").read_bytes()
    except OSError:
        return True  # of the hub, or no model: others say so
    return b"quantization_config" in config
