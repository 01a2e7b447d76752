"""What GGUF says of each architecture: the sizes by their keys, and what becomes of its weights.

The keys are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What llama.cpp's graphs have built in,
and GGUF no key for, is checked here: a model that has it otherwise is refused.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import gguf
import numpy as np
from msgspec import Struct

from trainer_entry.runtime.failures import NotWritable
from trainer_entry.wire.gguf import FAMILIES

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Change = Literal["none", "pairs", "plus_one", "transposed"]
"""What a weight needs: nothing; rows in pairs that turn together; one more, where the norm adds it; its transpose."""

_GELU = frozenset({"gelu_pytorch_tanh", "gelu_new"})
_NOPE_STEP = 4


class Architecture(Struct, frozen=True, kw_only=True):
    """A model's architecture in GGUF: its name there, and the numbers that its weights are changed by."""

    name: str
    family: str
    layers: int
    heads: int
    kv_heads: int
    tied: bool

    def change_of(self, weight: str) -> Change:
        """What becomes of a weight, by its name in transformers."""
        module = weight.rsplit(".", 1)[0]
        if self.name in {"llama", "smollm3"} and module.endswith((".q_proj", ".k_proj")):
            return "pairs"
        if self.name.startswith("gemma") and module.endswith("norm"):
            return "plus_one"
        if self.name == "gpt2" and weight.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            return "transposed"
        return "none"

    def heads_of(self, weight: str) -> int:
        """How many heads the rows of a weight are for."""
        return self.kv_heads if ".k_proj." in weight else self.heads

    def names(self) -> gguf.TensorNameMap:
        """What GGUF calls the weights."""
        (architecture,) = (key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == self.name)
        return gguf.get_tensor_name_map(architecture, self.layers)


def architecture_of(config: PreTrainedConfig) -> Architecture:
    """The architecture of a model that was admitted.

    Raises:
        NotWritable: something of it is not as llama.cpp computes it.
    """
    name = FAMILIES.get(config.model_type)
    if name is None:
        raise NotWritable(f"The architecture {config.model_type} is not known here: {', '.join(FAMILIES)} are.")
    heads = config.num_attention_heads
    found = Architecture(
        name=name,
        family=config.model_type,
        layers=config.num_hidden_layers,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        tied=bool(config.tie_word_embeddings),
    )
    for what, is_so in _expectations(found, config):
        if not is_so:
            raise NotWritable(f"{config.model_type} with {what} is not what llama.cpp computes: it is not written.")
    return found


def _expectations(found: Architecture, config: Any) -> list[tuple[str, bool]]:
    """What llama.cpp takes for granted of an architecture, each in words, and whether it holds."""
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    match found.name:
        case "gpt2":
            plain = not (config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn)
            return [
                (f"activation_function {config.activation_function}", config.activation_function in _GELU),
                ("attention scaled by layers", plain and config.scale_attn_weights),
            ]
        case "gemma" | "gemma2" | "gemma3":
            scale = getattr(config, "query_pre_attn_scalar", config.head_dim)
            both = getattr(config, "use_bidirectional_attention", None)
            return [
                (f"hidden_activation {activation}", activation in {*_GELU, "gelu"}),
                (f"query_pre_attn_scalar {scale}", scale == config.head_dim),
                ("use_bidirectional_attention", not both),
                ("weights of its own for the output", found.tied or found.name == "gemma3"),
                *_window_expectations(found, config),
            ]
        case "smollm3":
            steps = [int((layer + 1) % _NOPE_STEP != 0) for layer in range(found.layers)]
            nope = list(config.no_rope_layers)
            return [(f"hidden_act {activation}", activation == "silu"), (f"no_rope_layers {nope}", nope == steps)]
        case _:
            return [(f"hidden_act {activation}", activation == "silu")]


def _window_expectations(found: Architecture, config: Any) -> list[tuple[str, bool]]:
    every = {"gemma2": 2, "gemma3": 6}.get(found.name)
    if every is None:
        return []
    usual = ["full_attention" if (layer + 1) % every == 0 else "sliding_attention" for layer in range(found.layers)]
    return [("other layer_types than usual", list(config.layer_types) == usual)]


def describe(writer: gguf.GGUFWriter, found: Architecture, config: Any, rows: int) -> None:
    """Write the sizes. `rows`: tokens that the embedding has a row for."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // found.heads
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * config.hidden_size
    writer.add_block_count(found.layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(found.heads)
    writer.add_head_count_kv(found.kv_heads)
    writer.add_vocab_size(rows)
    if found.name == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    _describe_positions(writer, found, config, head_size)
    window = getattr(config, "sliding_window", None)
    if found.name in {"gemma2", "gemma3", "phi3"} and window:
        writer.add_sliding_window(window)
    for value, add in (
        (getattr(config, "attn_logit_softcapping", None), writer.add_attn_logit_softcapping),
        (getattr(config, "final_logit_softcapping", None), writer.add_final_logit_softcapping),
    ):
        if value:
            add(value)


def _describe_positions(writer: gguf.GGUFWriter, found: Architecture, config: Any, head_size: int) -> None:
    rope = rope_of(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * head_size))
    if "sliding_attention" in config.rope_parameters:
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
    if found.name == "phi3":
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    match rope.get("rope_type", "default"):
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
            for key, add in (
                ("attention_factor", writer.add_rope_scaling_yarn_attn_factor),
                ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
                ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
            ):
                if rope.get(key) is not None:
                    add(rope[key])
        case "default" | "llama3":
            pass
        case kind:
            raise NotWritable(f"Its positions are scaled by {kind}, which is not known here.")


def rope_of(config: Any) -> dict[str, Any]:
    """How positions turn, in the layers that see all of a text."""
    parameters: dict[str, Any] = config.rope_parameters
    found: dict[str, Any] = parameters.get("full_attention", parameters)
    return found


def rope_factors(config: Any) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """By what each frequency is divided, where they are scaled as in Llama 3: half a head's size of numbers.

    Frequencies above `high_freq_factor` stay, those below `low_freq_factor` are divided by `factor`, and what lies
    between goes over smoothly (transformers' `_compute_llama3_parameters` has the same of their inverses).
    """
    rope = rope_of(config) if hasattr(config, "rope_parameters") else {}
    if rope.get("rope_type") != "llama3":
        return None
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    context = rope["original_max_position_embeddings"]
    factors = []
    for place in range(0, size, 2):
        turns = context / (2 * math.pi * rope["rope_theta"] ** (place / size))
        if turns > high:
            factors.append(1.0)
        elif turns < low:
            factors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)
