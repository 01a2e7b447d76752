"""The last layer of a causal model and its loss in one, piece by piece (on the CPU).

Logits are the largest tensors of a small model's training: of 256 tokens and 49,152 words, 50 MB. transformers
holds them for all tokens, with their log-probabilities and the gradients of both. Here, each piece of them is made,
gives its loss and the gradient of its inputs, and is forgotten: the gradient of a loss by its logits is

    d(-log p[label]) / d(logits) = p - onehot(label),    p = softmax(logits)

so nothing has to wait for the backward pass, which only multiplies by what follows the loss. Tokens without a
label have no logits at all. It is the idea of Cut Cross-Entropy (arXiv 2411.09009) and of Liger (arXiv 2410.10989).

Where the layer is frozen, a piece is of some words, whose weights are read once for many tokens and stay near the
processor for both products. What softmax divides by is known when all words were seen, so sums are held by the largest
logit so far, as FlashAttention holds them (arXiv 2205.14135, algorithm 1). The gradient of a weight needs the
probabilities themselves: where one is asked for, a piece is of some tokens and all words.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

import torch
from msgspec import Struct
from torch import nn

from trainer_entry.data.examples import IGNORED
from trainer_entry.strategies.products import times_transposed

_PIECE_BYTES = 16 << 20
"""Of the logits of some tokens: large enough for a fast product, small enough to stay near the processor."""
_FEWEST_TOKENS = 16
_PIECE_TOKENS, _PIECE_WORDS = 512, 2048
"""Of a piece of some words: its weights and logits together are a few MB."""


class Scaling(Struct, frozen=True, gc=False):
    """What a model does with its logits: `factor` * product, then `cap` * tanh(logits / cap)."""

    factor: float = 1.0
    cap: float | None = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale them, in place."""
        if self.factor != 1.0:
            logits *= self.factor
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def bend(self, logits: torch.Tensor) -> torch.Tensor | None:
        """How steeply the scaled logits y rise under the cap, where there is one: c tanh(x / c) by 1 - (y / c)^2."""
        return None if self.cap is None else 1 - (logits / self.cap).square_()

    def reverse(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Of a gradient by the scaled logits that by the product, in place."""
        bent = self.bend(logits)
        gradient = gradient if bent is None else gradient.mul_(bent)
        return gradient if self.factor == 1.0 else gradient.mul_(self.factor)


class _SummedLoss(torch.autograd.Function):
    """The cross-entropy of some tokens, summed: of `hidden` (n, h), `weight` (words, h), `labels` (n).

    `kind`: in which it multiplies. `learns`: whether there will be a backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        scaling: Scaling,
        kind: torch.dtype,
        learns: bool,  # noqa: FBT001 - torch passes no names
    ) -> torch.Tensor:
        of_hidden, *of_layer = (learns and needed for needed in ctx.needs_input_grad[:3])
        given = (hidden.to(kind), weight.to(kind), bias, labels, scaling)
        if any(of_layer):
            total, gradients = _by_tokens(*given, (of_hidden, *of_layer))
        else:
            total, by_hidden = _by_words(*given, of_hidden)
            gradients = (by_hidden, None, None)
        ctx.gradients = gradients
        ctx.dtypes = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: torch.Tensor) -> Any:
        gradients = tuple(
            None if one is None else one.mul_(outer[0]).to(dtype)
            for one, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        )
        ctx.gradients = ()  # they were changed in place: there is no second backward pass
        return (*gradients, None, None, None, None)


def _by_words(
    rows: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    scaling: Scaling,
    learns: bool,  # noqa: FBT001 - as torch gives it
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The loss and, where one `learns`, its gradient by `rows`, (n, h) in 32 bits; of a layer that does not learn."""
    total = rows.new_zeros((), dtype=torch.float32)
    gradient = torch.empty_like(rows, dtype=torch.float32) if learns else None
    for start in range(0, len(rows), _PIECE_TOKENS):
        piece = slice(start, start + _PIECE_TOKENS)
        loss, slopes = _of_all_words(rows[piece], matrix, bias, labels[piece, None], scaling, learns)
        total += loss
        if gradient is not None:
            gradient[piece] = slopes
    return total, gradient


def _of_all_words(
    rows: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    answers: torch.Tensor,
    scaling: Scaling,
    learns: bool,  # noqa: FBT001 - as torch gives it
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of few rows. `mine`, `others` and `pulls` are of exp(logit - highest), until the last word is seen.

    The label's own share, `mine`, is in no product: in 16 bits one near 1 leaves no room for what other words add. It
    is 1 - p = others / (others + mine) times the label's weights in the end.
    """
    # Finite, so that words of -inf, which have no share, may come first.
    highest = rows.new_full((len(rows), 1), torch.finfo(torch.float32).min, dtype=torch.float32)
    mine, others, of_answers = (torch.zeros_like(highest) for _ in range(3))
    pulls = rows.new_zeros(rows.shape, dtype=torch.float32) if learns else rows.new_zeros(())
    for first in range(0, len(matrix), _PIECE_WORDS):
        words = slice(first, first + _PIECE_WORDS)
        weights = matrix[words]
        logits = scaling.apply(logits_of(rows, weights, None if bias is None else bias[words]).float())
        places = answers - first
        here, places = (places >= 0) & (places < len(weights)), places.clamp(0, len(weights) - 1)
        of_answers += logits.gather(1, places).where(here, 0)
        before, highest = highest, torch.maximum(highest, logits.amax(1, keepdim=True))
        shrunk = (before - highest).exp_()
        bent = scaling.bend(logits) if learns else None
        shares = logits.sub_(highest).exp_()
        own = shares.gather(1, places)
        mine.mul_(shrunk).add_(own.where(here, 0))
        others.mul_(shrunk).add_(shares.scatter_(1, places, own.masked_fill(here, 0)).sum(1, keepdim=True))
        if learns:
            shares = shares if bent is None else shares.mul_(bent)
            pulls.mul_(shrunk).add_(times_transposed(shares.to(rows.dtype), weights.t()))
    sums = mine.add_(others)
    loss = (sums.log() + highest - of_answers).sum()
    if learns:
        bent = scaling.bend(of_answers)
        right = matrix[answers[:, 0]].float()
        pulls.sub_(right.mul_(others if bent is None else bent.mul_(others))).div_(sums).mul_(scaling.factor)
    return loss, pulls


def _by_tokens(
    rows: torch.Tensor,
    matrix: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    scaling: Scaling,
    needed: tuple[bool, ...],
) -> tuple[torch.Tensor, tuple[torch.Tensor | None, ...]]:
    """The loss and the gradients that are needed, by `rows`, `matrix` and `bias`: of a layer that learns."""
    by_rows = torch.empty_like(rows) if needed[0] else None
    by_matrix = torch.zeros_like(matrix, dtype=torch.float32) if needed[1] else None
    by_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and needed[2] else None
    total = rows.new_zeros((), dtype=torch.float32)
    count = max(_FEWEST_TOKENS, _PIECE_BYTES // (torch.float32.itemsize * len(matrix)))
    for start in range(0, len(rows), count):
        piece, answers = rows[start : start + count], labels[start : start + count, None]
        logits = scaling.apply(logits_of(piece, matrix, bias).float())
        logarithms = torch.log_softmax(logits, dim=-1)
        total -= logarithms.gather(1, answers).sum()
        slopes = logarithms.exp_()
        slopes.scatter_add_(1, answers, slopes.new_full(answers.shape, -1.0))
        slopes = scaling.reverse(slopes, logits).to(rows.dtype)
        if by_rows is not None:
            by_rows[start : start + count] = times_transposed(slopes, matrix.t())
        if by_matrix is not None:
            by_matrix += slopes.t() @ piece
        if by_bias is not None:
            by_bias += slopes.sum(0)
    return total, (by_rows, by_matrix, by_bias)


def logits_of(rows: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """What a last layer gives, before any scaling: of (n, h) and (words, h), and of a bias (words), (n, words)."""
    logits = times_transposed(rows, matrix)
    return logits if bias is None else logits.add_(bias)


def _kind(head: nn.Linear) -> torch.dtype:
    """In which a layer would multiply now."""
    device = head.weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype


def summed_loss(
    hidden: torch.Tensor, head: nn.Linear, labels: torch.Tensor, scaling: Scaling
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cross-entropy of each token by what stands before it, summed over those with a label; and how many these are.

    `hidden`: (rows, tokens, h), what the last layer is given. `labels`: (rows, tokens), IGNORED where there is none.
    """
    following = labels[:, 1:].to(hidden.device)
    learned = following != IGNORED
    given = (hidden[:, :-1][learned], head.weight, head.bias, following[learned])
    loss: torch.Tensor = _SummedLoss.apply(*given, scaling, _kind(head), torch.is_grad_enabled())
    return loss, learned.sum()
