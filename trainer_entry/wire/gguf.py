"""What can become a GGUF file: which models, by what their `config.json` says, and in which types of numbers.

Server and trainer ask the same, so that nothing is refused only once a job has started.
"""

from typing import Literal

from msgspec import Struct

Quantization = Literal[
    "f32", "f16", "bf16", "q8_0",
    "q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_1", "q4_k_s", "q4_k_m",
    "q5_0", "q5_1", "q5_k_s", "q5_k_m", "q6_k",
]  # fmt: skip
"""The types of numbers in a GGUF file, as llama.cpp names them."""

BITS: dict[Quantization, float] = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5,
    "q2_k": 3.4, "q3_k_s": 3.7, "q3_k_m": 4.1, "q3_k_l": 4.5, "q4_0": 4.7, "q4_1": 5.1, "q4_k_s": 4.8, "q4_k_m": 5.0,
    "q5_0": 5.6, "q5_1": 6.0, "q5_k_s": 5.6, "q5_k_m": 5.8, "q6_k": 6.6,
}  # fmt: skip
"""About how many bits a weight takes: in the mean over a model, parts of which llama.cpp keeps finer."""

OWN: tuple[Quantization, ...] = ("f32", "f16", "bf16", "q8_0")
"""Those that need no other program; the others are made by llama.cpp's `llama-quantize`."""

QUANTIZER = "llama-quantize"

FAMILIES: dict[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "phi3": "phi3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "smollm3": "smollm3",
    "olmo2": "olmo2",
    "gpt2": "gpt2",
}
"""The `model_type` of the models that are written, and what GGUF calls their architecture."""

_ROPES = ("default", "linear", "llama3", "yarn")
_CAUSAL = ("ForCausalLM", "LMHeadModel")


class RopeSettings(Struct, frozen=True, gc=False):
    """How a model's positions are scaled, by either of the names that it has had."""

    rope_type: str | None = None
    type: str | None = None


class ModelConfig(Struct, frozen=True, gc=False):
    """The parts of a `config.json` on which it depends whether a model can be written as GGUF."""

    model_type: str | None = None
    architectures: list[str] | None = None
    is_encoder_decoder: bool = False
    quantization_config: dict[str, object] | None = None
    rope_scaling: RopeSettings | None = None
    rope_parameters: RopeSettings | None = None
    use_sliding_window: bool | None = None


def fault_of(config: ModelConfig) -> str | None:
    """Why a model cannot be written as GGUF; None where it can be."""
    names = config.architectures or []
    known = f"These can be written: {', '.join(FAMILIES)}."
    if config.is_encoder_decoder:
        return (
            f"It is an encoder-decoder model ({config.model_type}), which llama.cpp's servers do not chat with. {known}"
        )
    if names and not any(name.endswith(_CAUSAL) for name in names):
        return f"It is no model that writes text on: its architecture is {', '.join(names)}. {known}"
    if config.model_type not in FAMILIES:
        return f"Its architecture ({config.model_type}) is not known here. {known}"
    if config.quantization_config is not None:
        return "Its weights are stored quantized: export a model whose weights have full precision."
    rope = config.rope_parameters or config.rope_scaling
    kind = None if rope is None else rope.rope_type or rope.type
    if kind is not None and kind not in _ROPES:
        return f"Its positions are scaled by {kind}, which is not known here; {', '.join(_ROPES)} are."
    if config.use_sliding_window:
        return "Some of its layers see a window of the text alone (use_sliding_window), which GGUF has no word for."
    return None
