"""A LoRA layer that is one step of autograd gives what peft's gives, forward and backward."""
# mypy: allow-untyped-calls

from __future__ import annotations

import copy
from typing import Any

import peft
import pytest
import torch
from torch import nn

from trainer_entry.strategies import lora_linear
from trainer_entry.strategies.lora_linear import join_adapters

pytestmark = pytest.mark.slow


class Layers(nn.Module):
    """Layers with and without a bias, the first of which is given what needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 20)
        self.second = nn.Linear(20, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(torch.tanh(self.first(x)))
        return result


def adapted(**settings: Any) -> Any:
    torch.manual_seed(5)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], **settings})
    model = peft.get_peft_model(Layers(), config)
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weights)
    return model


def learned(model: Any, x: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(9)
    y = model(x)
    (y.square().mean() + y[..., 0].sum()).backward()
    grown = {name: weights.grad for name, weights in model.named_parameters() if weights.grad is not None}
    return grown | {"y": y.detach()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-5, atol=1e-6, msg=name)


def count_joined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers computed so."""
    calls: list[int] = []
    joined = lora_linear._Adapted  # noqa: SLF001

    class Counted:
        @staticmethod
        def apply(*given: Any) -> torch.Tensor:
            calls.append(1)
            y: torch.Tensor = joined.apply(*given)
            return y

    monkeypatch.setattr(lora_linear, "_Adapted", Counted)
    return calls


@pytest.mark.parametrize("shape", [(3, 5, 12), (7, 12), (1, 1, 12), (0, 12)])
@pytest.mark.parametrize("scaling", [{}, {"use_rslora": True}])
def test_outputs_and_gradients_are_those_of_peft(
    shape: tuple[int, ...], scaling: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    plain = adapted(**scaling)
    model = copy.deepcopy(plain)
    calls = count_joined(monkeypatch)
    # when
    assert join_adapters(model) == 2
    x = torch.randn(*shape)
    # then
    same(learned(model, x), learned(plain, x))
    assert len(calls) == 2
    # and of what needs a gradient itself
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    model(one).sum().backward()
    plain(other).sum().backward()
    torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_dropout": 0.5},
        {"use_dora": True},
        {"lora_bias": True, "target_modules": ["first"]},
        {"init_lora_weights": "pissa"},
        {"bias": "all"},
    ],
)
def test_what_is_not_plain_goes_on_as_in_peft(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = adapted(**settings)
    model = copy.deepcopy(plain)
    calls = count_joined(monkeypatch)
    join_adapters(model)
    x = torch.randn(4, 12)
    same(learned(model, x), learned(plain, x))
    # a start that peft computes is plain once it is there; only the layer without a bias is, where biases are trained
    assert len(calls) == {"init_lora_weights": 2, "bias": 1}.get(next(iter(settings)), 0)


def test_other_states_of_an_adapter_go_on_as_in_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted()
    plain = copy.deepcopy(model)
    calls = count_joined(monkeypatch)
    join_adapters(model)
    x = torch.randn(4, 12)
    with torch.no_grad():
        whole = model(x)
        with model.disable_adapter(), plain.disable_adapter():
            assert torch.equal(model(x), plain(x))
        assert len(calls) == 2
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(model(x), plain(x))
        model.merge_adapter()
        torch.testing.assert_close(model(x), whole, rtol=1e-5, atol=1e-5)
        model.unmerge_adapter()
        model.add_adapter("other", peft.LoraConfig(r=2, target_modules=["first"]))
        model.base_model.set_adapter(["default", "other"])
        torch.testing.assert_close(model(x), whole, rtol=1e-5, atol=1e-5)
        assert len(calls) == 2
        merged = model.merge_and_unload()
    assert type(merged.first) is nn.Linear
    torch.testing.assert_close(merged(x), whole, rtol=1e-5, atol=1e-5)


def test_activations_that_are_computed_again_give_the_same_gradients() -> None:
    plain = adapted()
    model = copy.deepcopy(plain)
    join_adapters(model)
    x = torch.randn(6, 12)
    recomputed = copy.deepcopy(model)
    inner = recomputed.forward
    recomputed.forward = lambda given: torch.utils.checkpoint.checkpoint(inner, given, use_reentrant=False)
    same(learned(recomputed, x), learned(plain, x))
