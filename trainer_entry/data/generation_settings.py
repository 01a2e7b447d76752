"""How a model's own `generation_config` is saved: it can be, and says where a turn ends.

Many models on the hub have sampling settings there and no `do_sample`: plain transformers only warns of that, until
something else in it is changed; from then on it refuses to save it, and a trained model with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainer_entry.data.edges import end_token_ids
from trainer_entry.runtime.stdout import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import GenerationConfig, PreTrainedTokenizerBase

_SAMPLING: Mapping[str, float | None] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""The settings that only sampling has, and the value of each that changes nothing."""
_BEAMS: Mapping[str, float | bool | None] = {"early_stopping": False, "length_penalty": 1.0}
_CACHE: Mapping[str, None] = {"cache_implementation": None, "cache_config": None}
_OUTPUTS: Mapping[str, bool] = {
    **dict.fromkeys(("output_attentions", "output_hidden_states", "output_scores", "output_logits"), False)
}


def settle_generation(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a model's generation settings ones that can be saved, and that end where its chat template ends a turn.

    A base model with a chat template would not stop otherwise in plain `generate`: it knows the eos token alone. An
    encoder-decoder model writes no turns, and one that answers from a context writes nothing.
    """
    if not model.can_generate():
        return
    own = model.generation_config
    _settle(own)
    if not model.config.is_encoder_decoder:
        ends = end_token_ids(tokenizer, own.eos_token_id)
        if ends and ends != [own.eos_token_id]:
            own.eos_token_id = ends


def _settle(own: GenerationConfig) -> None:
    """Leave out what has no meaning beside the rest.

    Sampling settings without a `do_sample` mean that whoever made the model samples, as servers of models do by them:
    it is said then. Beside a `do_sample` that is false, or beams, they mean nothing: transformers passes over them.
    """
    has_beams = own.num_beams is not None and own.num_beams > 1
    asks_sampling = own.do_sample is None and not has_beams and own.temperature != 0 and own.penalty_alpha is None
    sampling = _standing(own, _SAMPLING)
    if sampling and asks_sampling:
        note(f"The model's generation_config has {_words(sampling)} and no do_sample, which is true from now on.")
        own.do_sample = True
    if own.do_sample is not True:
        _leave_out(own, _SAMPLING, "it does not sample")
    if not has_beams:
        _leave_out(own, _BEAMS, "it has no beams")
    if own.use_cache is False:
        _leave_out(own, _CACHE, "it uses no cache")
    if own.return_dict_in_generate is not True:
        _leave_out(own, _OUTPUTS, "it returns nothing but tokens")
    if isinstance(own.pad_token_id, int) and own.pad_token_id < 0:
        _leave_out(own, {"pad_token_id": None}, "no token has a negative number")


def _standing(own: GenerationConfig, neutral: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that say something."""
    values = {name: getattr(own, name, None) for name in neutral}
    return {name: value for name, value in values.items() if value is not None and value != neutral[name]}


def _leave_out(own: GenerationConfig, neutral: Mapping[str, Any], why: str) -> None:
    standing = _standing(own, neutral)
    for name in standing:
        setattr(own, name, None)
    if standing:
        note(f"The model's generation_config has {_words(standing)}, which are left out: {why}.")


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())
