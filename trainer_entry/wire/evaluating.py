"""How a model that is there is judged: as its training judges it, by a trainer that makes no step."""

import msgspec

from trainer_entry.wire.job import EarlierAdapter, Evaluate, JobSpec, Strategy
from trainer_entry.wire.parameters import TrainingParameters

_OF_THE_MODEL = (
    *("seed", "bf16", "fp16", "attn_implementation", "max_seq_length", "truncation", "doc_stride"),
    *("lora_r", "lora_alpha", "use_rslora", "use_dora", "target_modules", "modules_to_save"),
    *("use_4bit", "use_8bit", "bnb_4bit_quant_type", "bnb_4bit_compute_dtype", "use_nested_quant", "weight_dtype"),
)
"""What of a training's parameters decides what its model says to a record."""
_OF_WHOLE_WEIGHTS = frozenset({"use_4bit", "use_8bit"})


def judging_parameters(
    trained_with: TrainingParameters, strategy: Strategy, *, adapts: bool, batch_size: int | None
) -> TrainingParameters:
    """The parameters of an evaluation. `strategy`: of the training. `adapts`: the model is an adapter on its base."""
    names = [name for name in _OF_THE_MODEL if adapts or name not in _OF_WHOLE_WEIGHTS]
    if strategy == "dpo":
        names += ["beta", "loss_type"]
    rows = batch_size or trained_with.per_device_eval_batch_size or trained_with.per_device_train_batch_size
    return TrainingParameters(
        **{name: getattr(trained_with, name) for name in names},
        use_lora=adapts,
        per_device_train_batch_size=rows,
        per_device_eval_batch_size=rows,
        gradient_checkpointing=False,
    )


def judging_job(spec: JobSpec, work: Evaluate) -> JobSpec:
    """The evaluation as a training on its own records, of which only the evaluation is made.

    Preferences are judged by dpo's trainer, for which the model without the adapter is the reference: so the adapter
    comes later (`trainer_entry.evaluate`).
    """
    compares = work.dataset.format == "preferences"
    loads_adapter = work.adapts and not work.base_model and not compares
    return msgspec.structs.replace(
        spec,
        strategy="dpo" if compares else "sft",
        model_path=spec.model_path if work.adapts or work.base_model else work.path,
        adapter=EarlierAdapter(path=work.path, base_revision=work.base_revision) if loads_adapter else None,
        dataset=work.dataset,
        validation=work.dataset,
        parameters=work.parameters,
        reward_model_path=None,
        work=None,
    )
