"""Puts an adapter into the weights of its base: a model that needs neither peft nor the base any more."""
# mypy: allow-untyped-calls

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from trainer_entry.artifacts.model_card import write_card
from trainer_entry.data.generation_settings import settle_generation
from trainer_entry.providers import hub
from trainer_entry.providers.builtin_model import resolve
from trainer_entry.providers.huggingface import model_class, revision_of
from trainer_entry.providers.model_folder import check_folder
from trainer_entry.runtime.disk import disk_full_errors, sync_entry, sync_tree
from trainer_entry.runtime.environment import describe
from trainer_entry.runtime.failures import BaseChanged, ModelUnavailable, NotMergeable
from trainer_entry.runtime.progress import Progress
from trainer_entry.wire import AttemptSpec, JobSpec, Merge, SavedModel

_GENERATION_CONFIG = "generation_config.json"


def layers_of(adapted: PeftModel) -> list[BaseTunerLayer]:
    """The layers that an adapter is on."""
    return [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]


def merge_layers(
    adapted: PeftModel, dtype: torch.dtype, merged: Callable[[], object] = lambda: None
) -> PreTrainedModel:
    """The model with the adapter in its weights, in `dtype`; `merged` is told of each layer.

    Each layer is added up in 32 bits, so that no small change is lost before the end, and one at a time.

    Raises:
        NotMergeable: no weights can be computed that do the same.
    """
    base: Any = adapted.get_base_model()
    _untie_adapted(base)
    for layer in layers_of(adapted):
        plain = _plain(layer)
        plain.float()
        _merge_layer(layer)
        plain.to(dtype)
        merged()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All adapters are already merged")
        model: PreTrainedModel = adapted.merge_and_unload()
    model.to(dtype)  # type: ignore[arg-type]
    return model


def merge(spec: AttemptSpec, work: Merge, progress: Progress) -> SavedModel:
    """Merge layer by layer in 32 bits, and save in `work.dtype`, or in the type that the base has on disk.

    Raises:
        ModelUnavailable: adapter or base are not there.
        BaseChanged: these are not the weights that the adapter was trained on.
        NotMergeable: no weights can be computed that do the same.
    """
    torch.set_num_threads(spec.cpu_threads)
    transformers.utils.logging.disable_progress_bar()
    progress.enter("loading_model")
    adapted, base = _load(spec.job, work)
    dtype: torch.dtype = getattr(torch, work.dtype or str(base.dtype or torch.float32).removeprefix("torch."))

    progress.begin(len(layers_of(adapted)), "layers", describe())
    progress.enter("merging")
    model = merge_layers(adapted, dtype, lambda: progress.advance(1))

    progress.enter("saving")
    return _save(model, spec.job, work, str(dtype).removeprefix("torch."), progress)


def merge_into(folder: Path, job: JobSpec, work: Merge, cpu_threads: int) -> None:
    """Merge in the type of the base, and write weights, tokenizer and settings into a folder for another use.

    Raises:
        ModelUnavailable, BaseChanged, NotMergeable: as for `merge`.
    """
    torch.set_num_threads(cpu_threads)
    transformers.utils.logging.disable_progress_bar()
    adapted, base = _load(job, work)
    model = merge_layers(adapted, getattr(torch, str(base.dtype or torch.float32).removeprefix("torch.")))
    folder.mkdir(parents=True)
    _write(folder, model, Path(work.path))


def _load(job: JobSpec, work: Merge) -> tuple[PeftModel, PreTrainedConfig]:
    """The adapter on its base, and the base's configuration as it is on disk.

    The base is in its own type where that is the one to save, else in 32 bits, so that nothing is rounded twice.
    """
    if not (Path(work.path) / "adapter_config.json").is_file():
        raise ModelUnavailable(f"{work.path} is no adapter's folder: it has no adapter_config.json.")
    where = resolve(job.model_path)
    is_local = Path(where).is_dir()
    if Path(where).is_absolute() and not is_local:
        raise ModelUnavailable(f"The base model is not in its folder any more: {where}. Put it back there.")
    check_folder(where)
    check_folder(work.path)
    options = {
        "local_files_only": not is_local and not hub.is_reachable(),
        "revision": "main" if is_local else work.base_revision or "main",
    }
    config = AutoConfig.from_pretrained(where, trust_remote_code=False, **options)
    if getattr(config, "quantization_config", None) is not None:
        raise NotMergeable(f"The weights of {job.model_name} are stored quantized: merge into a full-precision base.")
    own = config.dtype if work.dtype in {None, str(config.dtype).removeprefix("torch.")} else None
    base = model_class(config, job.task).from_pretrained(
        where, dtype=own or torch.float32, trust_remote_code=False, use_safetensors=True, **options
    )
    revision = revision_of(where, base.config)
    check_base(where, revision, work.base_revision)
    return PeftModel.from_pretrained(base, work.path).eval(), config


def check_base(where: str, revision: str | None, trained_on: str | None) -> None:
    """Refuse to put an adapter on other weights than it was trained on, as far as it is known which these were.

    Raises:
        BaseChanged: they are others.
    """
    if trained_on not in {None, revision}:
        raise BaseChanged(
            f"{where} has other weights ({revision}) than the adapter was trained on ({trained_on}). "
            "Put those back, or train anew."
        )


def _untie_adapted(base: PreTrainedModel) -> None:
    """Give the output weights of their own, where they are the embeddings' and the adapter is on one of the two."""
    if any(isinstance(end, BaseTunerLayer) for end in (base.get_input_embeddings(), base.get_output_embeddings())):
        untie_ends(base)


def untie_ends(base: PreTrainedModel) -> None:
    """Give the output weights of their own, where they are the embeddings'."""
    inner, outer = (_plain(end) for end in (base.get_input_embeddings(), base.get_output_embeddings()))
    if outer is not None and outer.weight is inner.weight:
        outer.weight = torch.nn.Parameter(outer.weight.detach().clone())
        base.config.tie_word_embeddings = False


def _plain(layer: Any) -> Any:
    return layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer


def _merge_layer(layer: BaseTunerLayer) -> None:
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:  # weights that are not finite
        raise NotMergeable(f"The merged weights would be none: {error}") from error


def _write(folder: Path, model: PreTrainedModel, adapter: Path) -> None:
    """Write a merged model, with the tokenizer and the generation settings of its adapter."""
    if (adapter / _GENERATION_CONFIG).is_file():
        model.generation_config = GenerationConfig.from_pretrained(adapter)
    tokenizer = AutoTokenizer.from_pretrained(adapter, trust_remote_code=False)
    settle_generation(model, tokenizer)  # an adapter of an older release says nothing of turns
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save(model: PreTrainedModel, job: JobSpec, work: Merge, dtype: str, progress: Progress) -> SavedModel:
    """Write weights, tokenizer, chat template, generation config and card, and only then give them their place."""
    adapter = Path(work.path)
    output = Path(job.output_dir)
    partial = output.with_name(output.name + ".partial")
    for leftover in (partial, output):  # of an earlier attempt that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    with disk_full_errors(partial):
        _write(partial, model, adapter)
        card = write_card(
            job, job.parameters, work.metrics, "full", work.base_revision,
            encoder_decoder=bool(model.config.is_encoder_decoder),
        )  # fmt: skip
        merged = f"The adapter `{work.name}` (model {work.model_id}) merged into its base, as {dtype}."
        (partial / "README.md").write_text(f"{card}\n## Merged\n\n{merged}\n", encoding="utf-8")
        sync_tree(partial)
    progress.commit()
    partial.rename(output)
    sync_entry(output.parent)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return SavedModel(path=str(output), kind="full", size_bytes=size, metrics=work.metrics)
