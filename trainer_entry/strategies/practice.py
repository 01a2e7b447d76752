"""One step of training before there is a job: what libraries do at their first use only is done then.

A model of a few thousand random numbers goes the way of a job's: it is loaded from its weights, its tokenizer writes
and reads a chat, an adapter is put on it, and a step is made. So the tables that transformers makes of all its
architectures are there, with the templates, the graph's threads, and the modules that are imported late. Nothing is
written, no GPU is touched, and nothing of it stays.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
import gc
import logging
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.state import AcceleratorState, GradientState  # type: ignore[import-untyped]
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.utils.logging import disable_progress_bar, info_once, warning_once

from trainer_entry.data.generation_settings import settle_generation
from trainer_entry.data.records import InputOutput
from trainer_entry.providers.huggingface import LoadedModel, context_of
from trainer_entry.runtime.environment import describe
from trainer_entry.runtime.stdout import note
from trainer_entry.strategies.sft import build_trainer
from trainer_entry.tasks.text_generation import fitted, gather
from trainer_entry.training.arguments import as_json
from trainer_entry.training.defaults import resolve_parameters, with_evaluation, with_model
from trainer_entry.training.trainer import count_parameters
from trainer_entry.wire import DatasetFile, JobSpec, TrainingParameters

if TYPE_CHECKING:
    from trainer_entry.training.trainer import AttemptTrainer

_THERE = str(Path(__file__).parent)
"""A folder that is there, for the libraries make the one that they are to write into. Nothing is written."""
_WORDS = ("<pad>", "<s>", "</s>", "user", "assistant", "what", "this")
_TEMPLATE = "{% for turn in messages %}<s>{{ turn['role'] }} {{ turn['content'] }}</s>{% endfor %}"
_LENGTH = 32


class _StepMade(Exception):
    """Leaves the training before it would save."""


class _Leave(TrainerCallback):
    def on_log(self, *_: Any, **__: Any) -> None:
        raise _StepMade


def practise() -> None:
    """Make a step, silently; one that fails is noted, and costs nothing but what it would have spared."""
    if torch.cuda.is_available():
        return
    disabled = logging.root.manager.disable
    try:
        logging.disable(logging.CRITICAL)
        disable_progress_bar()  # as for a job; its bars have a thread that stays
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _make_step()
    except Exception:  # noqa: BLE001 - a job is trained without it too
        note(f"A trainer that stands by could not practise:\n{traceback.format_exc()}")
    finally:
        logging.disable(disabled)
        for said in (warning_once, info_once):  # the job's own are to be heard
            said.cache_clear()
        AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001 - accelerate has no other way
        GradientState._reset_state()  # noqa: SLF001
        gc.collect()
        gc.freeze()


def _make_step() -> None:
    trainer = _trainer_for(_job())
    count_parameters(trainer)
    as_json(trainer.args)
    describe()
    trainer.add_callback(_Leave())
    with contextlib.suppress(_StepMade):
        trainer.train()


def _trainer_for(job: JobSpec) -> AttemptTrainer:
    loaded = _load()
    settle_generation(loaded.model, loaded.tokenizer)
    records = [InputOutput("what", "this"), InputOutput("this", "what")]
    found = ((line, fitted(record, loaded.tokenizer, _LENGTH)) for line, record in enumerate(records))
    examples = gather(found, frozenset(), _LENGTH)
    parameters = with_model(resolve_parameters(job), job, loaded.context, encoder_decoder=False, recomputes=True)
    parameters = with_evaluation(parameters, len(examples.train), examples.tokens, evaluates=False)
    return build_trainer(job, loaded, examples, parameters)


def _job() -> JobSpec:
    return JobSpec(
        job_id="practice",
        task="text-generation",
        strategy="sft",
        provider="huggingface",
        model_name="practice",
        model_path=_THERE,
        dataset=DatasetFile(filename="practice", path=_THERE, sha256="", format="input_output", num_examples=2),
        parameters=TrainingParameters(per_device_train_batch_size=2, max_steps=1, max_seq_length=_LENGTH, lora_r=2),
        output_name="practice",
        output_dir=_THERE,
        checkpoint_dir=_THERE,
    )


def _load() -> LoadedModel:
    padding, start, end, *_ = _WORDS
    words = Tokenizer(WordLevel({word: place for place, word in enumerate(_WORDS)}, unk_token=padding))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=padding,
        bos_token=start,
        eos_token=end,
        model_max_length=_LENGTH,
    )
    tokenizer.chat_template = _TEMPLATE
    config = LlamaConfig(
        vocab_size=len(_WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=_LENGTH,
        tie_word_embeddings=True,
    )
    weights = {name: values.bfloat16() for name, values in LlamaForCausalLM(config).state_dict().items()}
    model = LlamaForCausalLM.from_pretrained(
        None, config=config, state_dict=weights, dtype=torch.float32, trust_remote_code=False
    )
    return LoadedModel(
        model=model, config=config, tokenizer=tokenizer, revision=None, context=context_of(config, tokenizer)
    )
