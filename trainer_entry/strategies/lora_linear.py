"""A frozen linear layer with its LoRA adapter as one step of autograd (arXiv 2106.09685), in 32 bits on the CPU.

    y = x W^T + s (x A^T) B^T

peft writes it as five operations, three of which make a tensor of y's size; their gradients make four more, of which
autograd keeps some. Written out, the adapter's part is added in place, and what is kept is x and the few numbers
x A^T. With g the gradient by y:

    by B: s g^T (x A^T)        by A: (s g B)^T x        by x: g W + (s g B) A
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import types
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn

from trainer_entry.strategies.products import times_transposed


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        rows = x.flatten(end_dim=-2)
        narrow = times_transposed(rows, down)
        y = times_transposed(rows, weight)
        if bias is not None:
            y += bias
        y.addmm_(narrow, up.t(), alpha=scale)
        ctx.save_for_backward(rows, narrow, weight, down, up)
        ctx.scale = scale
        return y.view(*x.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        rows, narrow, weight, down, up = ctx.saved_tensors
        (gradient,) = gradients
        by_y = gradient.flatten(end_dim=-2)
        by_narrow = times_transposed(by_y, up.t()).mul_(ctx.scale)
        by_x = None
        if ctx.needs_input_grad[0]:
            by_x = times_transposed(by_y, weight.t()).addmm_(by_narrow, down)
            by_x = by_x.view(*gradient.shape[:-1], weight.shape[1])
        by_up = (narrow.t() @ by_y).mul_(ctx.scale).t()  # of few rows: the other way around it takes four times as long
        return by_x, None, None, by_narrow.t() @ rows, by_up, None


def join_adapters(model: nn.Module) -> int:
    """Let the plain LoRA layers of a model compute so; how many there are.

    Any other call, and any other layer, goes on as in peft: with dropout, DoRA, weights of 4 or 8 bits or
    that are trained themselves, 16 bits, autocast, several adapters or none.
    """
    layers = [module for module in model.modules() if type(module) is Linear and type(module.base_layer) is nn.Linear]
    for layer in layers:
        setattr(layer, "forward", types.MethodType(_forward, layer))  # noqa: B010 - a method, for this layer alone
    return len(layers)


def _forward(layer: Linear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    name = layer.active_adapters[0] if len(layer.active_adapters) == 1 else None
    if args or kwargs or name is None or not _is_plain(layer, name, x):
        return type(layer).forward(layer, x, *args, **kwargs)
    base: Any = layer.base_layer
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight
    y: torch.Tensor = _Adapted.apply(x, base.weight, base.bias, down, up, layer.scaling[name])
    return y


def _is_plain(layer: Linear, name: str, x: torch.Tensor) -> bool:
    base: Any = layer.base_layer
    return (
        x.device.type == "cpu"
        and name in layer.lora_A
        and not layer.disable_adapters
        and not layer.merged
        and name not in layer.lora_variant
        and type(layer.lora_dropout[name]) is nn.Identity
        and layer.lora_B[name].bias is None
        and not base.weight.requires_grad
        and not (base.bias is not None and base.bias.requires_grad)
        and x.dtype == base.weight.dtype == layer.lora_A[name].weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
