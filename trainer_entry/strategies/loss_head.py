"""A causal model's forward with its last layer and its loss in one (`summed_loss`), where that is what it computes."""
# mypy: allow-untyped-calls

from __future__ import annotations

import functools
import inspect
import types
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutput

from trainer_entry.runtime.stdout import note
from trainer_entry.strategies.summed_loss import Scaling, logits_of, summed_loss

_TRIED_TOKENS = 4
_CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


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
    """Whether a model makes that of its hidden states; these are made up, for its layers take as long as half a step.

    Where its forward does more than to hand its input to the layers, they are what the layers give.
    """
    tolerance = _CLOSE.get(head.weight.dtype)
    if tolerance is None:
        return False
    ids = torch.arange(_TRIED_TOKENS, device=head.weight.device)[None]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            tried = _with_made_up(model, own, head, ids) or (
                own(input_ids=ids, labels=ids, use_cache=False),
                model.base_model(input_ids=ids, use_cache=False).last_hidden_state,
            )
            expected, hidden = tried
            if hidden.shape[-1] != head.in_features or hidden.dtype != head.weight.dtype:
                return False
            logits = scaling.apply(logits_of(hidden[0], head.weight, head.bias).float())
            loss, count = summed_loss(hidden, head, ids, scaling)
        close = functools.partial(torch.allclose, rtol=tolerance, atol=tolerance)
        return close(logits, expected.logits[0].float()) and close(loss / count, expected.loss.float())
    except Exception as error:  # noqa: BLE001 - the model's own loss is there in any case
        note(f"The loss is computed from all logits, as the model does: {type(error).__name__}: {error}")
        return False
    finally:
        model.train(training)


def _with_made_up(model: Any, own: Any, head: nn.Linear, ids: torch.Tensor) -> tuple[Any, torch.Tensor] | None:
    """What a model makes of hidden states that stand for those of its layers, and these; None where it needs more."""
    layers = model.base_model
    if layers is model:
        return None
    drawn = torch.Generator(device=head.weight.device).manual_seed(0)  # the training's own numbers stay as they are
    shape = (*ids.shape, head.in_features)
    hidden = torch.randn(shape, generator=drawn, device=head.weight.device).to(head.weight.dtype)
    given: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def answer(*args: Any, **inputs: Any) -> BaseModelOutputWithPast:
        given.append((args, inputs))
        return BaseModelOutputWithPast(last_hidden_state=hidden)

    before = vars(layers).get("forward")
    layers.forward = answer
    try:
        made = own(input_ids=ids, labels=ids, use_cache=False)
    except Exception:  # noqa: BLE001 - the real layers may answer with more
        return None
    finally:
        del layers.forward
        if before is not None:
            layers.forward = before
    return (made, hidden) if len(given) == 1 and _are_plain(*given[0], ids) else None


def _are_plain(args: tuple[Any, ...], inputs: dict[str, Any], ids: torch.Tensor) -> bool:
    """Whether layers were given just a model's input, as they are when they are called without the model."""
    others = [*args, *(value for name, value in inputs.items() if name != "input_ids")]
    return inputs.get("input_ids") is ids and all(value is None or value is False for value in others)
