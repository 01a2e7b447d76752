"""The last layer of a causal model and its loss in one, a few tokens at a time (on the CPU).

Logits are the largest tensors of a small model's training: of 256 tokens and 49,152 words, 50 MB. transformers
holds them for all tokens, with their log-probabilities and the gradients of both. Here, each piece of them is made,
gives its loss and the gradient of its inputs, and is forgotten: the gradient of a loss by its logits is

    d(-log p[label]) / d(logits) = p - onehot(label),    p = softmax(logits)

so nothing has to wait for the backward pass, which only multiplies by what follows the loss. Tokens without a
label have no logits at all. It is the idea of Cut Cross-Entropy (arXiv 2411.09009) and of Liger (arXiv 2410.10989).
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import torch
from msgspec import Struct
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from trainer_entry.data.examples import IGNORED
from trainer_entry.runtime.stdout import note
from trainer_entry.strategies.products import times_transposed

_PIECE_BYTES = 16 << 20
"""Of the logits of a piece: large enough for a fast product, small enough to stay near the processor."""
_FEWEST_TOKENS = 16
_TRIED_TOKENS = 4
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


class Scaling(Struct, frozen=True, gc=False):
    """What a model does with its logits: `factor` * product, then `cap` * tanh(logits / cap)."""

    factor: float = 1.0
    cap: float | None = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale them, in place."""
        if self.factor != 1.0:
            logits *= self.factor
        return logits if self.cap is None else logits.div_(self.cap).tanh_().mul_(self.cap)

    def reverse(self, gradient: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """Of a gradient by the scaled logits y that by the product, in place: c tanh(x / c) rises by 1 - (y / c)^2."""
        if self.cap is not None:
            gradient *= 1 - (logits / self.cap).square_()
        return gradient if self.factor == 1.0 else gradient.mul_(self.factor)


def scaling_of(config: Any) -> Scaling:
    """What the model's configuration says of it, in the words of its family."""
    text = config.get_text_config()
    factor = next(
        (
            value
            for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")  # Cohere, Falcon-H1
            if (value := getattr(text, name, None)) is not None
        ),
        None,
    )
    if factor is None and (divisor := getattr(text, "logits_scaling", None)) is not None:  # Granite divides by it
        factor = divisor if text.model_type == "hyperclovax" else 1 / divisor
    return Scaling(1.0 if factor is None else float(factor), getattr(text, "final_logit_softcapping", None))


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
        of_hidden, of_weight, of_bias, *_ = (learns and needed for needed in ctx.needs_input_grad)
        rows, matrix = hidden.to(kind), weight.to(kind)
        by_hidden = torch.empty_like(rows) if of_hidden else None
        by_weight = torch.zeros_like(weight, dtype=torch.float32) if of_weight else None
        by_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and of_bias else None
        total = hidden.new_zeros((), dtype=torch.float32)
        count = max(_FEWEST_TOKENS, _PIECE_BYTES // (torch.float32.itemsize * len(weight)))
        for start in range(0, len(rows), count):
            piece, answers = rows[start : start + count], labels[start : start + count, None]
            logits = scaling.apply(_products(piece, matrix, bias).float())
            logarithms = torch.log_softmax(logits, dim=-1)
            total -= logarithms.gather(1, answers).sum()
            if not (of_hidden or of_weight or of_bias):
                continue
            slopes = logarithms.exp_()
            slopes.scatter_add_(1, answers, slopes.new_full(answers.shape, -1.0))
            slopes = scaling.reverse(slopes, logits).to(kind)
            if by_hidden is not None:
                by_hidden[start : start + count] = times_transposed(slopes, matrix.t())
            if by_weight is not None:
                by_weight += slopes.t() @ piece
            if by_bias is not None:
                by_bias += slopes.sum(0)
        ctx.gradients = (by_hidden, by_weight, by_bias)
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


def _products(rows: torch.Tensor, matrix: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
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


def add_loss_head(model: Any) -> bool:
    """Let `model(..., loss_head=True, labels=labels)` give the loss without logits; False where it would be another.

    A few tokens are tried: what the model's own forward gives has to be what this gives.
    """
    head, scaling = model.get_output_embeddings(), scaling_of(model.config)
    if type(head) is not nn.Linear or getattr(model.config, "output_router_logits", False):
        return False
    own = model.forward

    def forward(self: Any, *args: Any, loss_head: bool = False, **inputs: Any) -> Any:
        if not loss_head:
            return own(*args, **inputs)
        labels, count = inputs.pop("labels"), inputs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **inputs).last_hidden_state
        loss, labelled = summed_loss(hidden, self.get_output_embeddings(), labels, scaling)
        return CausalLMOutput(loss=loss / (labelled if count is None else torch.as_tensor(count).to(loss.device)))

    if not _is_same(model, own, head, scaling):
        return False
    # Generation reads it. functools.wraps would say more: accelerate goes to the innermost of what is wrapped.
    forward.__signature__ = inspect.signature(type(model).forward)  # type: ignore[attr-defined]
    model.forward = types.MethodType(forward, model)
    return True


def _is_same(model: Any, own: Any, head: nn.Linear, scaling: Scaling) -> bool:
    training, tolerance = model.training, _CLOSE.get(head.weight.dtype)
    if tolerance is None:
        return False
    model.eval()
    ids = torch.arange(_TRIED_TOKENS, device=head.weight.device)[None]
    try:
        with torch.no_grad():
            expected = own(input_ids=ids, labels=ids, use_cache=False)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            if hidden.shape[-1] != head.in_features or hidden.dtype != head.weight.dtype:
                return False
            logits = scaling.apply(_products(hidden[0], head.weight, head.bias).float())
            loss, count = summed_loss(hidden, head, ids, scaling)
        close = functools.partial(torch.allclose, rtol=tolerance, atol=tolerance)
        return close(logits, expected.logits[0].float()) and close(loss / count, expected.loss.float())
    except Exception as error:  # noqa: BLE001 - the model's own loss is there in any case
        note(f"The loss is computed from all logits, as the model does: {type(error).__name__}: {error}")
        return False
    finally:
        model.train(training)
