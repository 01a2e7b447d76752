"""The sizes of a model, from its `config.json`, whatever its architecture calls them there."""

from __future__ import annotations

import msgspec
from msgspec import Struct

_LONGEST = 1 << 20
"""The trainer's own limit of a context."""
_GATES = frozenset({"silu", "swish", "gelu_pytorch_tanh"})


class Architecture(Struct, frozen=True, kw_only=True, gc=False):
    """What activations depend on. `context` is None where the model has no limit.

    `cached`: numbers that a token keeps in each layer while an answer is written, its keys and values. `gated`: the
    feed-forward part has three matrices.
    """

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    intermediate: int
    cached: int
    context: int | None = None
    gated: bool = False


class _Config(Struct):
    """Every name that a size is known under; of an encoder and a decoder, those of either."""

    hidden_size: int | None = None
    n_embd: int | None = None
    d_model: int | None = None
    dim: int | None = None
    num_hidden_layers: int | None = None
    n_layer: int | None = None
    n_layers: int | None = None
    num_layers: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    num_decoder_layers: int | None = None
    num_attention_heads: int | None = None
    n_head: int | None = None
    n_heads: int | None = None
    num_heads: int | None = None
    encoder_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    n_inner: int | None = None
    d_ff: int | None = None
    hidden_dim: int | None = None
    encoder_ffn_dim: int | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    n_positions: int | None = None
    model_type: str | None = None
    hidden_act: str | None = None
    feed_forward_proj: str | None = None
    text_config: _Config | None = None
    encoder: _Config | None = None
    decoder: _Config | None = None


def architecture_of(config: bytes) -> Architecture | None:
    """The sizes that a `config.json` tells; None where it does not tell enough of them."""
    try:
        told = msgspec.json.decode(config, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if told.encoder is not None and told.decoder is not None:
        encoder, decoder = _sizes(told.encoder), _sizes(told.decoder)
        if encoder is None or decoder is None:
            return None
        return msgspec.structs.replace(decoder, layers=encoder.layers + decoder.layers)
    return _sizes(told.text_config or told)


def _sizes(told: _Config) -> Architecture | None:
    hidden = told.hidden_size or told.n_embd or told.d_model or told.dim
    heads = told.num_attention_heads or told.n_head or told.n_heads or told.num_heads or told.encoder_attention_heads
    layers = _layers(told)
    if not hidden or not heads or not layers or not told.vocab_size or min(hidden, heads, layers, told.vocab_size) < 0:
        return None
    context = told.max_position_embeddings or told.n_positions
    head = told.head_dim or hidden // heads
    feed_forward = told.intermediate_size or told.n_inner or told.d_ff or told.hidden_dim or told.encoder_ffn_dim
    return Architecture(
        hidden=hidden,
        layers=layers,
        heads=heads,
        vocabulary=told.vocab_size,
        intermediate=feed_forward or 4 * hidden,
        cached=2 * (told.num_key_value_heads or heads) * head,
        context=min(context, _LONGEST) if context and context > 0 else None,
        # Llama and all that came after it gate with SiLU or a GELU that they call by a longer name; T5 says so.
        gated=told.hidden_act in _GATES or (told.feed_forward_proj or "").startswith("gated"),
    )


def _layers(told: _Config) -> int | None:
    if told.encoder_layers or told.decoder_layers:
        return (told.encoder_layers or 0) + (told.decoder_layers or 0)
    if told.model_type is not None and "t5" in told.model_type and told.num_layers:
        return told.num_layers + (told.num_decoder_layers or told.num_layers)
    return told.num_hidden_layers or told.n_layer or told.n_layers or told.num_layers
