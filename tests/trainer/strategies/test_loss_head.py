"""A loss that is computed without all logits is the model's own, and so are its gradients."""
# mypy: allow-untyped-calls

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import pytest
import torch
import transformers as hf

from trainer_entry.strategies import summed_loss
from trainer_entry.strategies.loss_head import add_loss_head

pytestmark = pytest.mark.slow

WORDS = 96
Kind = Literal["tied", "untied", "bias", "capped", "scaled", "divided", "multiplied", "gpt2", "opt"]
KINDS: tuple[Kind, ...] = ("tied", "untied", "bias", "capped", "scaled", "divided", "multiplied", "gpt2", "opt")


def model_of(kind: Kind) -> Any:
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": WORDS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0, "initializer_range": 0.3,
    }  # fmt: skip
    configs: dict[Kind, Any] = {
        "tied": lambda: hf.LlamaConfig(**sizes, tie_word_embeddings=True),
        "untied": lambda: hf.LlamaConfig(**sizes, tie_word_embeddings=False),
        "bias": lambda: hf.PhiConfig(**sizes),
        "capped": lambda: hf.Gemma2Config(**sizes, head_dim=16, final_logit_softcapping=2.0),
        "scaled": lambda: hf.CohereConfig(**sizes, logit_scale=0.3),
        "divided": lambda: hf.GraniteConfig(**sizes, logits_scaling=3.0),
        "multiplied": lambda: hf.FalconH1Config(
            **sizes, lm_head_multiplier=0.4, mamba_d_ssm=32, mamba_n_heads=2, mamba_d_head=16, mamba_d_state=8
        ),
        "opt": lambda: hf.OPTConfig(
            vocab_size=WORDS,
            hidden_size=32,
            word_embed_proj_dim=16,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            dropout=0.0,
            pad_token_id=0,
        ),
        "gpt2": lambda: hf.GPT2Config(
            vocab_size=WORDS, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
        ),
    }
    return hf.AutoModelForCausalLM.from_config(configs[kind](), attn_implementation="eager").train()


def batch_of(lengths: list[int], prompt: int = 2) -> dict[str, torch.Tensor]:
    """Rows of these lengths, filled up to the longest; the first tokens of each are no answer."""
    draw = torch.Generator().manual_seed(11)
    width = max(lengths)
    ids, labels, mask = (torch.zeros(len(lengths), width, dtype=torch.long) for _ in range(3))
    labels -= 100
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(1, WORDS, (length,), generator=draw)
        labels[row, prompt:length], mask[row, :length] = ids[row, prompt:length], 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def learned(model: Any, batch: dict[str, Any], **asked: Any) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**batch, **asked).loss
    loss.backward()
    return loss.item(), {name: weights.grad for name, weights in model.named_parameters() if weights.grad is not None}


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_every_gradient_are_the_model_s_own(
    kind: Kind,
    frozen: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given pieces of 16 tokens, or of 9 and 40 words where the head is frozen, of which the last is not full
    for name, value in (("_PIECE_BYTES", 1), ("_PIECE_TOKENS", 9), ("_PIECE_WORDS", 40)):
        monkeypatch.setattr(summed_loss, name, value)
    plain = model_of(kind)
    if frozen:
        plain.get_output_embeddings().requires_grad_(requires_grad=False)
    model = copy.deepcopy(plain)
    # when
    assert add_loss_head(model)
    # then, of rows of unequal lengths, of one, of a share of a step and of a mean
    for lengths, count in (([14, 5, 9, 3], 25), ([7], None), ([20, 20], torch.tensor(99))):
        batch = batch_of(lengths)
        shared = {} if count is None else {"num_items_in_batch": count}
        loss, gradients = learned(model, batch, loss_head=True, **shared)
        expected, own = learned(plain, batch, **shared)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert gradients.keys() == own.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient, own[name], rtol=1e-4, atol=1e-5, msg=name)


def test_without_the_word_the_model_gives_its_logits_as_before() -> None:
    model = model_of("tied")
    batch = batch_of([6, 4])
    before = model(**batch).logits
    assert add_loss_head(model)
    assert torch.equal(model(**batch).logits, before)


def test_an_evaluation_keeps_nothing_and_gives_the_same_loss() -> None:
    model = model_of("untied")
    assert add_loss_head(model)
    batch = batch_of([9, 6])
    with torch.no_grad():
        loss = model(**batch, loss_head=True).loss
        expected = model(**batch).loss
    assert not loss.requires_grad
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_batch_in_which_nothing_is_learned_gives_no_gradient_and_no_error() -> None:
    model = model_of("tied")
    assert add_loss_head(model)
    batch = batch_of([5, 4], prompt=5)
    loss, gradients = learned(model, batch, loss_head=True, num_items_in_batch=7)
    assert loss == 0.0
    assert all(gradient.abs().max() == 0 for gradient in gradients.values())


@pytest.mark.parametrize("frozen", [False, True])
def test_in_sixteen_bits_the_loss_is_as_near_as_they_are(
    frozen: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    model = model_of("untied")
    model.lm_head.requires_grad_(not frozen)
    assert add_loss_head(model)
    batch = batch_of([14, 9])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, gradients = learned(model, batch, loss_head=True)
        expected, own = learned(model, batch)
    assert loss == pytest.approx(expected, rel=1e-2)
    for name, gradient in gradients.items():
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), own[name].flatten(), dim=0) > 0.99


@pytest.mark.parametrize("distance", [5, 50], ids=["in the label's piece", "in another piece"])
def test_in_sixteen_bits_what_other_words_add_counts_where_the_label_is_nearly_certain(
    distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given labels with a probability of 0.999, each with one word beside it that has nearly all the rest
    monkeypatch.setattr(summed_loss, "_PIECE_WORDS", 40)
    torch.manual_seed(5)
    labels = torch.arange(30)
    head = torch.nn.Linear(128, WORDS, bias=False).requires_grad_(requires_grad=False)
    head.weight.copy_(torch.randn(WORDS, 128).bfloat16())
    wanted = torch.zeros(30, WORDS)
    wanted[labels, labels], wanted[labels, labels + distance] = 20.0 + math.log(999), 20.0
    hidden = (wanted @ torch.linalg.pinv(head.weight).t()).bfloat16().float()
    exact = hidden.double().requires_grad_()
    torch.nn.functional.cross_entropy(exact @ head.weight.double().t(), labels, reduction="sum").backward()
    assert exact.grad is not None

    def error_of(loss: Any) -> float:
        given = hidden.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss(given).backward()
        assert given.grad is not None
        return float((given.grad - exact.grad).norm() / exact.grad.norm())

    def ours(given: torch.Tensor) -> torch.Tensor:
        first, rows = torch.tensor([-100]), torch.cat([given, torch.zeros(1, 128)])
        return summed_loss.summed_loss(rows[None], head, torch.cat([first, labels])[None], summed_loss.Scaling())[0]

    # then it is as near as autocast is
    plain = error_of(lambda given: torch.nn.functional.cross_entropy(head(given).float(), labels, reduction="sum"))
    assert error_of(ours) < 1.1 * plain


def test_words_that_cannot_be_leave_the_loss_a_number_where_a_whole_piece_has_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summed_loss, "_PIECE_WORDS", 40)
    torch.manual_seed(5)
    head = torch.nn.Linear(8, WORDS).requires_grad_(requires_grad=False)
    head.bias[:50] = -torch.inf
    hidden, labels = torch.randn(1, 9, 8, requires_grad=True), torch.randint(50, WORDS, (1, 9))
    plain = hidden.detach().clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(head(plain)[0, :-1], labels[0, 1:], reduction="sum")
    expected.backward()
    loss, _ = summed_loss.summed_loss(hidden, head, labels, summed_loss.Scaling())
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(hidden.grad, plain.grad)


def test_logits_of_any_height_leave_the_loss_of_a_frozen_head_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    # given logits in the thousands, which no exponential in 32 bits holds, the highest in the last piece of words
    monkeypatch.setattr(summed_loss, "_PIECE_WORDS", 40)
    model = model_of("untied")
    with torch.no_grad():
        model.lm_head.weight.mul_(2000).mul_(torch.linspace(0.1, 1, WORDS)[:, None])
    model.lm_head.requires_grad_(requires_grad=False)
    assert add_loss_head(model)
    batch = batch_of([9, 6])
    # then
    loss, gradients = learned(model, batch, loss_head=True)
    expected, own = learned(model, batch)
    assert expected > 1000
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, own[name], rtol=1e-3, atol=1e-3, msg=name)


def test_a_model_that_makes_something_else_of_its_logits_keeps_its_own_loss() -> None:
    class Odd(hf.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.01
            return output

    model = Odd(model_of("tied").config)
    own = model.forward
    assert not add_loss_head(model)
    assert model.forward == own
    model.lm_head = torch.nn.Sequential(torch.nn.Linear(32, WORDS))
    assert not add_loss_head(model)


def test_a_model_that_gives_its_layers_something_else_is_tried_with_them_and_keeps_its_own_loss() -> None:
    class Shifted(hf.LlamaForCausalLM):
        def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> Any:
            return super().forward(input_ids=input_ids + 1, **kwargs)

    assert not add_loss_head(Shifted(model_of("tied").config))


def test_the_trial_leaves_the_layers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("tied")
    before = torch.get_rng_state()
    with monkeypatch.context() as patched:
        patched.setattr(model.model.layers[0], "forward", lambda *_, **__: pytest.fail("a layer was run"))
        assert add_loss_head(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert "forward" not in vars(model.model)


def test_a_model_that_takes_no_trial_keeps_its_own_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("tied")

    def refuses(**_: Any) -> Any:
        raise KeyError("pixel_values")

    monkeypatch.setattr(model, "forward", refuses)
    assert not add_loss_head(model)
    assert model.training
    assert model.forward is refuses


def test_it_stays_where_accelerate_takes_its_own_wrapping_away() -> None:
    import inspect

    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    model, batch = model_of("tied"), batch_of([9, 7])
    names = [*inspect.signature(model.forward).parameters]
    expected = model(**batch).loss
    assert add_loss_head(model)
    assert [*inspect.signature(model.forward).parameters] == names
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - another test has made one in this process
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    unwrapped: Any = accelerator.unwrap_model(accelerator.prepare_model(model), keep_fp32_wrapper=False)
    found = unwrapped(**batch, loss_head=True)
    AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - the next test makes its own
    assert found.logits is None
    torch.testing.assert_close(found.loss, expected)
