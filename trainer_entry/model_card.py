"""README.md of a trained model: what it was made of, and how it is used."""

import json

import msgspec

from trainer_entry.wire import JobSpec, ModelKind, TrainingParameters

_LOAD_ADAPTER = """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
"""
_LOAD_FULL = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")
tokenizer = AutoTokenizer.from_pretrained(".")
"""


def write_card(
    job: JobSpec,
    parameters: TrainingParameters,
    metrics: dict[str, float | None],
    kind: ModelKind,
    revision: str | None,
) -> str:
    """The card's text. `revision` says which weights of the base model were trained."""
    tags = ["modelforge", job.strategy, *(["lora"] if kind == "adapter" else [])]
    values = msgspec.to_builtins(parameters)
    return "\n".join(
        [
            "---",
            f"base_model: {json.dumps(job.model_name)}",
            f"library_name: {'peft' if kind == 'adapter' else 'transformers'}",
            f"pipeline_tag: {job.task}",
            "datasets:",
            f"- {json.dumps(job.dataset.filename)}",
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
                "dataset": job.dataset.filename,
                "records": job.dataset.num_examples,
                "SHA-256": job.dataset.sha256,
            }),
            "",
            "The loss was computed on the answers only.",
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
            _LOAD_ADAPTER + "```" if kind == "adapter" else _LOAD_FULL + "```",
            "",
        ]
    )  # fmt: skip


def _table(rows: dict[str, object] | dict[str, float | None]) -> list[str]:
    cells = [f"| {name} | {_cell(value)} |" for name, value in rows.items()]
    return ["| | |", "|---|---|", *cells]


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value).replace("|", "\\|").replace("\n", " ")
