"""The sizes of a model, from its `config.json`, whatever its architecture calls them there."""

from __future__ import annotations

import msgspec
from msgspec import Struct

_LONGEST = 1 << 20
"""The trainer's own limit of a context."""
_MOST_LAYERS = 10_000
_LARGEST = 1 << 30
"""No size of a model is larger: what a configuration says beyond is no estimate's business."""
_GATES = frozenset({"silu", "swish", "gelu_pytorch_tanh"})


class Architecture(Struct, frozen=True, kw_only=True, gc=False):
    """What activations depend on. `context` is None where the model has no limit.

    `cached`: numbers that a token keeps in each layer while an answer is written, its keys and values. `gated`: the
    feed-forward part has three matrices. `encoder_decoder`: one part reads a text, and another writes the answer.
    `drops`: attention leaves out some of what it sees at random while it learns.
    """

    hidden: int
    layers: int
    heads: int
    vocabulary: int
    intermediate: int
    cached: int
    context: int | None = None
    gated: bool = False
    encoder_decoder: bool = False
    drops: bool = False


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
    attention_probs_dropout_prob: float | None = None
    attention_dropout: float | None = None
    attn_pdrop: float | None = None
    dropout_rate: float | None = None
    feed_forward_proj: str | None = None
    is_encoder_decoder: bool | None = None
    text_config: _Config | None = None
    encoder: _Config | None = None
    decoder: _Config | None = None


def architecture_of(content: bytes) -> Architecture | None:
    """The sizes in a `config.json`; None where they are not enough."""
    try:
        config = msgspec.json.decode(content, type=_Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if config.encoder is not None and config.decoder is not None:
        encoder, decoder = _sizes(config.encoder), _sizes(config.decoder)
        if encoder is None or decoder is None:
            return None
        return msgspec.structs.replace(decoder, layers=encoder.layers + decoder.layers, encoder_decoder=True)
    return _sizes(config.text_config or config)


def _sizes(config: _Config) -> Architecture | None:
    hidden = config.hidden_size or config.n_embd or config.d_model or config.dim
    heads = (
        config.num_attention_heads
        or config.n_head
        or config.n_heads
        or config.num_heads
        or config.encoder_attention_heads
    )
    layers = _layers(config)
    if (
        not hidden
        or not heads
        or not layers
        or not config.vocab_size
        or min(hidden, heads, layers, config.vocab_size) < 0
    ):
        return None
    context = config.max_position_embeddings or config.n_positions
    head = config.head_dim or hidden // heads
    cached = 2 * (config.num_key_value_heads or heads) * head
    feed_forward = (
        config.intermediate_size or config.n_inner or config.d_ff or config.hidden_dim or config.encoder_ffn_dim
    )
    sizes = (hidden, heads, config.vocab_size, cached, feed_forward or 4 * hidden)
    if layers > _MOST_LAYERS or not all(0 < size <= _LARGEST for size in sizes):
        return None
    dropped = (
        config.attention_probs_dropout_prob,
        config.attention_dropout,
        config.attn_pdrop,
        config.dropout_rate,
    )
    return Architecture(
        hidden=hidden,
        layers=layers,
        heads=heads,
        vocabulary=config.vocab_size,
        intermediate=feed_forward or 4 * hidden,
        cached=cached,
        context=min(context, _LONGEST) if context and context > 0 else None,
        # Llama and all that came after it gate with SiLU or a GELU that they call by a longer name; T5 says so.
        encoder_decoder=bool(config.is_encoder_decoder),
        drops=any(dropped),
        gated=config.hidden_act in _GATES or (config.feed_forward_proj or "").startswith("gated"),
    )


def _layers(config: _Config) -> int | None:
    if config.encoder_layers or config.decoder_layers:
        return (config.encoder_layers or 0) + (config.decoder_layers or 0)
    if config.model_type is not None and "t5" in config.model_type and config.num_layers:
        return config.num_layers + (config.num_decoder_layers or config.num_layers)
    return config.num_hidden_layers or config.n_layer or config.n_layers or config.num_layers
