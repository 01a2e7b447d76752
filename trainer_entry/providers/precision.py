"""The type and the quantization of a model's weights, as a job's parameters ask for them."""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

    from trainer_entry.wire import Task, TrainingParameters


def quantization_config(
    parameters: TrainingParameters, task: Task = "text-generation", *, rewards: bool = False
) -> BitsAndBytesConfig | None:
    """How the frozen weights are compressed, if at all; a head is left as it is.

    transformers finds a head that writes tokens by itself, and not one that answers, nor one that rewards.
    """
    from transformers import BitsAndBytesConfig

    heads = ["score"] if rewards else ["qa_outputs"] if task == "extractive-question-answering" else None
    if parameters.use_8bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=heads)
    if not parameters.use_4bit:
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=heads,
        bnb_4bit_quant_type=parameters.bnb_4bit_quant_type,
        bnb_4bit_compute_dtype=getattr(torch, parameters.bnb_4bit_compute_dtype or "float32"),
        bnb_4bit_use_double_quant=parameters.use_nested_quant,
    )


def weight_dtype(parameters: TrainingParameters) -> torch.dtype:
    """In what the weights are held: the frozen ones of an adapter in the type that they are computed in.

    Weights that are trained are held in 32 bits, unless 16 were asked for, where an optimizer's small updates are lost.
    """
    if not parameters.use_lora:
        return torch.bfloat16 if parameters.weight_dtype == "bfloat16" else torch.float32
    return compute_dtype(parameters)


def compute_dtype(parameters: TrainingParameters) -> torch.dtype:
    """In what is computed."""
    return torch.bfloat16 if parameters.bf16 else torch.float16 if parameters.fp16 else torch.float32


def placement() -> dict[str, torch.device] | None:
    """Where a model's weights are loaded to: this process's GPU, straight from the file; None: the host's memory."""
    return {"": torch.device("cuda", torch.cuda.current_device())} if torch.cuda.is_available() else None
