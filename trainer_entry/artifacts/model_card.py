"""README.md of a trained model: what it was made of, and how it is used."""

import json
from typing import assert_never

import msgspec

from trainer_entry.wire import JobSpec, ModelKind, Task, TrainingParameters
from trainer_entry.wire.rewards import labels_of


def write_card(
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
    kind: ModelKind,
    revision: str | None,
    *,
    encoder_decoder: bool,
) -> str:
    """The card's text. `revision` says which weights of the base model were trained."""
    tags = ["modelforge", job.strategy, *(["lora"] if kind == "adapter" else [])]
    values = msgspec.to_builtins(parameters)
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(job.model_name)}",
            f"library_name: {'peft' if kind == 'adapter' else 'transformers'}",
            f"pipeline_tag: {_on_the_hub(job.task)}",
            "datasets:",
            *(f"- {json.dumps(name)}" for name in dict.fromkeys(file.filename for file in job.dataset.files)),
            "tags:",
            *(f"- {tag}" for tag in tags),
            "---",
            "",
            f"# {job.output_name}",
            "",
            f"`{job.model_name}` fine-tuned by ModelForge ({job.strategy}, job `{job.job_id}`).",
            "",
            "## Trained on",
            "",
            *_table({
                "base model": job.model_name,
                "revision": revision or "unknown",
                **_data(job),
                **_lineage(job),
            }),
            "",
            _learned_from(job, parameters),
            "",
            "## Figures at the end",
            "",
            *_table(metrics),
            "",
            "## Parameters",
            "",
            *_table(values),
            "",
            "## Use",
            "",
            "```python",
            *_loading(job.task, kind, encoder_decoder=encoder_decoder),
            "```",
            "",
        ]
    )  # fmt: skip


def _data(job: JobSpec) -> dict[str, object]:
    """The records that it was trained and evaluated on: of each dataset where there are several."""
    whole, data = job.dataset, dict[str, object]()
    if whole.parts:
        for number, part in enumerate(whole.parts, start=1):
            file = part.dataset
            data[f"dataset {number}"] = f"{file.filename}, SHA-256 {file.sha256}"
            data[f"records of dataset {number}"] = f"{part.taken}, of {file.num_examples}"
        data["seed of the mixture"] = whole.seed
    else:
        data |= {"dataset": whole.filename, "records": whole.num_examples, "SHA-256": whole.sha256}
    if job.validation is not None:
        data["evaluated on"] = f"{job.validation.filename}, SHA-256 {job.validation.sha256}"
    return data


def _lineage(job: JobSpec) -> dict[str, object]:
    """The trained models that it comes of, if there are any."""
    if not job.lineage:
        return {}
    models = ", ".join(f"{ancestor.name} (model {ancestor.model_id})" for ancestor in job.lineage)
    return {"went on from": models, "where all began": job.lineage[-1].base_model}


def _on_the_hub(task: Task) -> str:
    """What the hub calls the task."""
    return "question-answering" if task == "extractive-question-answering" else task


def _learned_from(job: JobSpec, parameters: TrainingParameters) -> str:
    match job.strategy:
        case "sft" | "qlora" if job.task == "extractive-question-answering":
            return "The loss was computed on the first and the last token of each answer."
        case "sft" | "qlora":
            return "The loss was computed on the answers only."
        case "dpo":
            return "The chosen answers were made likelier than the rejected ones, compared with the base model."
        case "rlhf":
            algorithm = parameters.rl_algorithm.upper()
            judges = ["A reward model"] if job.has_reward_model else []
            if parameters.rewards:
                names = ", ".join(f"`{label}`" for label in labels_of(parameters.rewards))
                judges.append(f"{'reward' if judges else 'Reward'} functions ({names})")
            return f"{' and '.join(judges)} rewarded the model for its own answers to the prompts, by {algorithm}."
        case _:
            assert_never(job.strategy)


def _loading(task: Task, kind: ModelKind, *, encoder_decoder: bool) -> list[str]:
    """The lines of Python that load the model."""
    if task == "extractive-question-answering":
        ending = "ForQuestionAnswering" if kind == "full" else ""  # such an adapter names its base's class itself
    else:
        ending = "ForSeq2SeqLM" if encoder_decoder else "ForCausalLM"
    auto = f"AutoPeftModel{ending}" if kind == "adapter" else f"AutoModel{ending}"
    # peft leaves the base's settings, which may not know where a turn ends.
    settings = ["GenerationConfig"] if kind == "adapter" and task != "extractive-question-answering" else []
    imports = (
        [f"from peft import {auto}", f"from transformers import {', '.join(['AutoTokenizer', *settings])}"]
        if kind == "adapter"
        else [f"from transformers import {auto}, AutoTokenizer"]
    )
    return [
        *imports,
        "",
        f'model = {auto}.from_pretrained(".")',
        *(f'model.generation_config = {name}.from_pretrained(".")' for name in settings),
        'tokenizer = AutoTokenizer.from_pretrained(".")',
    ]


def _table(rows: dict[str, object] | dict[str, float | None]) -> list[str]:
    cells = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return ["| | |", "|---|---|", *cells]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
