"""What ggml computes of a GGUF file, written once more in torch: from its keys and tensors alone, without a config.

By hand it was held against llama.cpp itself (as llama-cpp-python 0.3.36 has it) on every model of `tiny_families`.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from pathlib import Path

_NEIGHBOURS = frozenset({"llama", "smollm3"})
"""The architectures in which a number turns with its neighbour; in others with the one half a head away."""
_NOPE_STEP = 4
_SLIDING = {"gemma2": 2, "gemma3": 6}
"""Of so many layers one sees everything, in architectures of which the others see a window."""


class Reference:
    """A file that was read: `logits` of tokens."""

    def __init__(self, path: Path) -> None:
        reader = gguf.GGUFReader(path)
        self.keys: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        self.types = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
        self.tensors = {
            tensor.name: torch.from_numpy(
                np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
            )
            for tensor in reader.tensors
        }
        self.architecture: str = self.keys["general.architecture"]

    def logits(self, tokens: list[int]) -> torch.Tensor:
        """A row of logits for each token."""
        embedding = self.tensors["token_embd.weight"]
        hidden = embedding[tokens]
        if self.architecture.startswith("gemma"):
            hidden = hidden * self._key("embedding_length") ** 0.5
        if "position_embd.weight" in self.tensors:
            hidden = hidden + self.tensors["position_embd.weight"][: len(tokens)]
        for layer in range(self._key("block_count")):
            hidden = self._layer(layer, hidden)
        output = self.tensors.get("output.weight", embedding)
        return self._soften(self._norm("output_norm", hidden) @ output.T, self._key("final_logit_softcapping", 0.0))

    def _key(self, name: str, otherwise: Any = None) -> Any:
        return self.keys.get(f"{self.architecture}.{name}", otherwise)

    def _norm(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self.tensors.get(f"{name}.weight"), self.tensors.get(f"{name}.bias")
        if weight is None:
            return hidden
        if bias is not None:
            return functional.layer_norm(hidden, weight.shape, weight, bias, self._key("attention.layer_norm_epsilon"))
        return functional.rms_norm(hidden, weight.shape, weight, self._key("attention.layer_norm_rms_epsilon"))

    def _linear(self, name: str, hidden: torch.Tensor) -> torch.Tensor:
        return functional.linear(hidden, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _layer(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        name = f"blk.{layer}"
        heard = self._norm(f"{name}.attn_norm", hidden)
        hidden = hidden + self._norm(f"{name}.post_attention_norm", self._attention(layer, heard))
        inner = self._norm(f"{name}.ffn_norm", hidden)
        gelu = self.architecture == "gpt2" or self.architecture.startswith("gemma")
        both = self._linear(f"{name}.ffn_up", inner)
        if f"{name}.ffn_gate.weight" in self.tensors:
            gate = self._linear(f"{name}.ffn_gate", inner)
        elif self.architecture == "phi3":
            gate, both = both.chunk(2, dim=-1)
        else:
            gate, both = both, torch.ones(())
        opened = functional.gelu(gate, approximate="tanh") if gelu else functional.silu(gate)
        return hidden + self._norm(f"{name}.post_ffw_norm", self._linear(f"{name}.ffn_down", opened * both))

    def _attention(self, layer: int, heard: torch.Tensor) -> torch.Tensor:
        name, length = f"blk.{layer}", len(heard)
        heads, kv_heads = self._key("attention.head_count"), self._key("attention.head_count_kv")
        size = self._key("attention.key_length", heard.shape[-1] // heads)
        if f"{name}.attn_qkv.weight" in self.tensors:
            whole = self._linear(f"{name}.attn_qkv", heard)
            asked, known, told = whole.split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
        else:
            asked, known, told = (self._linear(f"{name}.attn_{part}", heard) for part in "qkv")
        if self.architecture == "olmo2":  # its norms are over all heads together
            asked, known = self._norm(f"{name}.attn_q_norm", asked), self._norm(f"{name}.attn_k_norm", known)
        asked, known, told = (part.view(length, -1, size).transpose(0, 1) for part in (asked, known, told))
        if self.architecture != "olmo2":
            asked, known = self._norm(f"{name}.attn_q_norm", asked), self._norm(f"{name}.attn_k_norm", known)
        slides = layer % _SLIDING.get(self.architecture, 1) != _SLIDING.get(self.architecture, 1) - 1
        asked, known = (self._turned(layer, part, slides=slides) for part in (asked, known))
        known, told = (part.repeat_interleave(heads // kv_heads, dim=0) for part in (known, told))
        scores = self._soften(asked @ known.transpose(1, 2) / size**0.5, self._key("attn_logit_softcapping", 0.0))
        ages = torch.arange(length)[:, None] - torch.arange(length)[None]
        unseen = (ages < 0) | (ages >= self._key("attention.sliding_window", length) if slides else ages < 0)
        mixed = scores.masked_fill(unseen, float("-inf")).softmax(-1) @ told
        return self._linear(f"{name}.attn_output", mixed.transpose(0, 1).reshape(length, -1))

    def _turned(self, layer: int, part: torch.Tensor, *, slides: bool) -> torch.Tensor:
        """Each pair of numbers, turned by the place of its token."""
        base = self._key("rope.freq_base")
        if base is None or (self.architecture == "smollm3" and (layer + 1) % _NOPE_STEP == 0):
            return part
        if slides:
            base = self._key("rope.freq_base_swa", base)
        size = self._key("rope.dimension_count")
        factors = self.tensors.get("rope_freqs.weight", torch.ones(size // 2))
        angles = torch.arange(part.shape[1])[:, None] / (base ** (torch.arange(0, size, 2) / size) * factors)
        cos, sin = angles.cos(), angles.sin()
        if self.architecture in _NEIGHBOURS:
            first, second = part[..., 0::2], part[..., 1::2]
            return torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1).flatten(-2)
        first, second = part.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)

    @staticmethod
    def _soften(numbers: torch.Tensor, cap: float) -> torch.Tensor:
        return torch.tanh(numbers / cap) * cap if cap else numbers
