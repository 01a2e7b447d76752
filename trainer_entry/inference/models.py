"""The model that was asked for last, and the adapters on it, which stay loaded."""
# mypy: allow-untyped-calls

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import GenerationConfig

from trainer_entry.providers import huggingface
from trainer_entry.providers.builtin_model import resolve
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.bounds import limit_memory
from trainer_entry.runtime.failures import ModelUnavailable
from trainer_entry.wire import Task

_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_BASE = "__base__"
"""peft's own name for no adapter, in a batch of several."""
_MOST_ADAPTERS = 16
_TIMES_THE_WEIGHTS = 10
_MEMORY_BESIDE = 4 << 30
_UNKNOWN_WEIGHTS = 32 << 30  # of a model that the hub gives; its files are its own to check


class Models:
    """One model for a task, and its adapters. `adapter` everywhere: the path of its folder; None: the base alone."""

    def __init__(self) -> None:
        self._kept: tuple[str, Task] | None = None
        self._loaded: LoadedModel | None = None
        self._adapters = _Adapters()

    def has(self, path: str, task: Task) -> bool:
        """Whether this is the model that is loaded."""
        return self._loaded is not None and self._kept == (path, task)

    def load(self, path: str, task: Task) -> LoadedModel:
        """The model at a path, for a task; the one before it goes.

        Raises:
            ModelUnavailable: it is not to be had, or has no form for this task.
        """
        if self._loaded is None or not self.has(path, task):
            self._loaded = None  # make room first
            self._adapters = _Adapters()
            if not torch.cuda.is_available():  # CUDA keeps memory of the host that nobody can foresee
                limit_memory(_memory_for(path))
            torch.manual_seed(0)  # a head that is made new is the same one each time
            loaded = huggingface.load(path, _dtype(), None, task)
            loaded.model.eval()
            if loaded.model.can_generate():
                loaded.model.generation_config = _tokens_of(loaded.model.generation_config)
            self._loaded, self._kept = loaded, (path, task)
        return self._loaded

    def put_on(self, loaded: LoadedModel, adapter: str | None, in_use: set[str]) -> None:
        """Load an adapter beside the others, of which those in use stay.

        Raises:
            ModelUnavailable: it is not whole.
        """
        if adapter is not None:
            try:
                self._adapters.put_on(loaded, adapter, in_use)
            except BaseException:
                if not self._adapters.are_whole:
                    self._kept = None  # half of an adapter may be on the model: it is loaded anew
                raise

    def mixes(self, adapter: str | None) -> bool:
        """Whether a batch can have rows with this adapter beside rows with others."""
        return adapter is None or self._adapters.mixes(adapter)

    def run(self, loaded: LoadedModel, adapters: list[str | None], **inputs: Any) -> Any:
        """What the model makes of a batch, each row of it with its adapter."""
        if len(set(adapters)) == 1:
            self.switch(adapters[0])
            model: Any = loaded.model
            return model(**inputs)
        return self._adapters.run_mixed(adapters, inputs)

    def switch(self, adapter: str | None) -> None:
        """Have the model itself answer with this adapter."""
        self._adapters.switch(adapter)


class _Adapters:
    """peft's model around one that is loaded, with its adapters by their paths, the last used one last."""

    def __init__(self) -> None:
        self._model: PeftModel | None = None
        self._names: dict[str, str] = {}
        self._made = 0
        self._active: str | None = None
        self._enabled = True
        self.are_whole = True

    def put_on(self, loaded: LoadedModel, path: str, in_use: set[str]) -> None:
        if path in self._names:
            self._names[path] = self._names.pop(path)
            return
        if not (Path(path) / _ADAPTER_WEIGHTS).is_file():
            raise ModelUnavailable(f"There is no {_ADAPTER_WEIGHTS} in the adapter's folder.")
        check_folder(path)
        for old in [old for old in self._names if old not in in_use][: max(0, len(self._names) + 1 - _MOST_ADAPTERS)]:
            self._take_off(old)
        self._made += 1
        name = f"adapter_{self._made}"
        self.are_whole = False
        if self._model is None:
            self._model = PeftModel.from_pretrained(loaded.model, path, adapter_name=name)
            self._active = path
        else:
            self._model.load_adapter(path, adapter_name=name)
        self._model.eval()
        self._names[path] = name
        self.are_whole = True

    def _take_off(self, path: str) -> None:
        if self._model is not None and len(self._names) > 1:
            self._model.delete_adapter(self._names.pop(path))
            self._active = None if self._active == path else self._active

    def mixes(self, path: str) -> bool:
        if self._model is None:
            return False
        config = self._model.peft_config[self._names[path]]
        return (
            isinstance(config, LoraConfig)
            and not (config.use_dora or config.modules_to_save or config.trainable_token_indices)
            and not (config.target_parameters or config.layer_replication)
            and config.bias == "none"
        )

    def switch(self, path: str | None) -> None:
        if self._model is None:
            return
        self._enable(self._model, enabled=path is not None)
        if path is not None and path != self._active:
            self._model.set_adapter(self._names[path])
            self._active = path

    def run_mixed(self, paths: list[str | None], inputs: dict[str, Any]) -> Any:
        if self._model is None:
            raise ModelUnavailable("No adapter is loaded.")
        self._enable(self._model, enabled=True)
        names = [_BASE if path is None else self._names[path] for path in paths]
        model: Any = self._model
        return model(**inputs, adapter_names=names)

    def _enable(self, model: PeftModel, *, enabled: bool) -> None:
        if enabled != self._enabled:
            adapted: Any = model.base_model
            (adapted.enable_adapter_layers if enabled else adapted.disable_adapter_layers)()
            self._enabled = enabled


def _tokens_of(own: GenerationConfig) -> GenerationConfig:
    """Of a model's own defaults, its special tokens: no beams, no least length, and no forced end at the limit."""
    return GenerationConfig(
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
        forced_bos_token_id=own.forced_bos_token_id,
    )


def _memory_for(path: str) -> int:
    """What a model may take at most beyond the libraries: weights may stand in 4 bits, and are computed in 32."""
    folder = Path(resolve(path))
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else _UNKNOWN_WEIGHTS
    return _TIMES_THE_WEIGHTS * weights + _MEMORY_BESIDE


def _dtype() -> torch.dtype:
    """As training computes: in 32 bits on the CPU, in 16 on a GPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
