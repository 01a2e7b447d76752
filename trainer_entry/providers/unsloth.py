"""Causal models by unsloth, which computes their training in its own, leaner ways. Import unsloth itself before this.

On a GPU it takes every parameter as it is. On a CPU it goes its own way in some: what only costs time or memory is
settled here, and reported as in effect; what would make another model than the one asked for is refused.
"""
# mypy: allow-untyped-calls

from types import SimpleNamespace
from typing import Any

import msgspec
from transformers import AutoModelForCausalLM

from trainer_entry.providers.huggingface import (
    LoadedModel,
    context_of,
    find,
    keep_gradients_exact,
    model_class,
    revision_of,
)
from trainer_entry.providers.precision import quantization_config, weight_dtype
from trainer_entry.runtime.failures import ConflictingParameters, refuse
from trainer_entry.wire import JobSpec, TrainingParameters
from trainer_entry.wire.obstacles import on_cpu_with_unsloth

_OFFLOADED = "unsloth"
"""Its own way of gradient checkpointing: on a GPU, the activations that are kept wait in the host's memory."""


def settle(job: JobSpec) -> JobSpec:
    """The job with the parameters that unsloth would change by itself as it would make them.

    Raises:
        ConflictingParameters: it would train another model.
    """
    if not _on_cpu():
        return job
    refuse(on_cpu_with_unsloth(job.parameters, job.strategy))
    from unsloth_zoo.cpu.trainer import normalize_cpu_training_arguments

    asked = job.parameters
    settled = SimpleNamespace(optim=asked.optim, packing=asked.packing, bf16=asked.bf16)
    normalize_cpu_training_arguments(settled)
    parameters = msgspec.structs.replace(asked, optim=settled.optim, packing=settled.packing, bf16=settled.bf16)
    return msgspec.structs.replace(job, parameters=parameters)


def load(job: JobSpec, parameters: TrainingParameters) -> LoadedModel:
    """Load a causal model, with the adapter that is trained, if one is: from a folder, by hub id, or the built-in one.

    Raises:
        ModelUnavailable: it is not to be had, or has no form for the task.
        ConflictingParameters: unsloth cannot train it, or not with these parameters.
    """
    from unsloth import FastLanguageModel

    source = find(job.model_path)
    if model_class(source.config, job.task) is not AutoModelForCausalLM:
        raise ConflictingParameters(
            f"unsloth trains causal models, and {job.task} with a {source.config.model_type} model is no work for one: "
            "use the provider huggingface."
        )
    if _on_cpu():
        refuse(on_cpu_with_unsloth(parameters, job.strategy))  # in what is computed, is chosen by now
    context = context_of(source.config, source.tokenizer)
    checkpointing: Any = _OFFLOADED if parameters.gradient_checkpointing else False
    model, _ = FastLanguageModel.from_pretrained(
        source.where,
        # Past its context it would stretch the model's positions.
        max_seq_length=min(parameters.max_seq_length or context, context),
        dtype=weight_dtype(parameters),
        load_in_4bit=bool(parameters.use_4bit),
        load_in_8bit=parameters.use_8bit,
        full_finetuning=not parameters.use_lora,
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,  # and not weights of its own hub account that someone quantized before
        trust_remote_code=False,
        use_safetensors=True,
        local_files_only=source.cache_only,
        quantization_config=quantization_config(parameters, job.task),
    )
    if parameters.use_4bit and not getattr(model, "is_loaded_in_4bit", False):
        raise ConflictingParameters(
            "unsloth could not quantize this model to 4 bits on this machine: leave out use_4bit (strategy sft), or "
            "use the provider huggingface."
        )
    keep_gradients_exact(model)
    revision = revision_of(source.where, model.config)
    if parameters.use_lora:
        model = FastLanguageModel.get_peft_model(
            model,
            r=parameters.lora_r,
            lora_alpha=parameters.lora_alpha,
            lora_dropout=parameters.lora_dropout,
            use_rslora=parameters.use_rslora,
            target_modules=parameters.adapted_layers,
            use_gradient_checkpointing=checkpointing,
            random_state=parameters.seed,
        )
    return LoadedModel(model=model, config=model.config, tokenizer=source.tokenizer, revision=revision, context=context)


def _on_cpu() -> bool:
    from unsloth import DEVICE_TYPE

    return bool(DEVICE_TYPE == "cpu")
