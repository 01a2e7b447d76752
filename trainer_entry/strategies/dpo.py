"""Direct preference optimization: the chosen answer made more likely than the rejected one (arXiv 2305.18290)."""
# mypy: allow-untyped-calls

from trl.trainer.dpo_trainer import DPOTrainer

from trainer_entry.arguments import preference_arguments
from trainer_entry.attempt_trainer import AttemptTrainer
from trainer_entry.examples import Examples
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.strategies.sft import follow, new_adapter
from trainer_entry.wire import JobSpec, TrainingParameters


class PreferenceTrainer(AttemptTrainer, DPOTrainer):
    """trl's own. With an adapter the model without it is the reference; otherwise a second copy is loaded."""


def build_trainer(
    job: JobSpec, loaded: LoadedModel, examples: Examples, parameters: TrainingParameters
) -> AttemptTrainer:
    """A trainer for the model as it is loaded."""
    trainer = PreferenceTrainer(
        model=loaded.model,
        args=preference_arguments(parameters, job.checkpoint_dir),
        train_dataset=examples.train,
        eval_dataset=examples.evaluation,
        processing_class=loaded.tokenizer,
        peft_config=new_adapter(job, loaded, parameters),
    )
    follow(trainer, job, parameters)
    return trainer
