"""The bare libraries, as their own guides have them: `python -m gpu.bare ORDER.json`.

A process of its own, without anything of ModelForge in it. It writes the loss of each
logged step, and the seconds of training until then, as JSON.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from gpu.bare_order import BareOrder, BareStep


def main(path: str) -> None:
    """Train as the order says."""
    order = msgspec.json.decode(Path(path).read_bytes(), type=BareOrder)
    os.environ["UNSLOTH_COMPILE_LOCATION"] = f"{order.output}.unsloth"
    if order.provider == "unsloth":
        import unsloth  # noqa: F401 - before the libraries that it changes
    import datasets

    records = datasets.load_dataset("json", data_files=order.dataset, split="train", cache_dir=f"{order.output}.cache")
    trainer = _trainer(order, records)
    steps: list[BareStep] = []
    _note_steps(trainer, steps)
    trainer.train()
    Path(order.output).write_bytes(msgspec.json.encode(steps))


def _trainer(order: BareOrder, records: Any) -> Any:
    import torch
    from transformers import set_seed
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    # Its name differs by the release of transformers, and trl turns it on.
    names = {field.name for field in dataclasses.fields(SFTConfig)}
    checkpointing = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    on_cpu = not torch.cuda.is_available()
    settings: dict[str, Any] = {
        **order.settings,
        "output_dir": f"{order.output}.trainer",
        "data_seed": order.settings["seed"],
        checkpointing: order.recomputes,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "max_length": order.length,
    }
    set_seed(order.settings["seed"])  # before trl 1.16 an adapter began with whatever numbers came next
    given = _model(order)
    if order.strategy == "dpo":
        return DPOTrainer(args=DPOConfig(**settings, beta=order.beta), train_dataset=records, **given)
    if "text" in records.column_names:
        return SFTTrainer(args=SFTConfig(**settings), train_dataset=records, **given)
    asked = records.map(
        lambda record: {"prompt": record["input"] + "\n", "completion": record["output"]},
        remove_columns=records.column_names,
    )
    return SFTTrainer(args=SFTConfig(**settings), train_dataset=asked, **given)


def _model(order: BareOrder) -> dict[str, Any]:
    import torch

    dtype = torch.bfloat16 if order.settings["bf16"] else torch.float32
    if order.provider == "unsloth":
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(
            order.model, max_seq_length=order.length, dtype=dtype, load_in_4bit=False
        )
        adapted = FastLanguageModel.get_peft_model(
            model, **order.adapter, use_gradient_checkpointing=False, random_state=order.settings["seed"]
        )
        return {"model": adapted, "processing_class": tokenizer}
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return {
        "model": AutoModelForCausalLM.from_pretrained(order.model, dtype=dtype),
        "processing_class": AutoTokenizer.from_pretrained(order.model),
        "peft_config": LoraConfig(**order.adapter, task_type="CAUSAL_LM"),
    }


def _note_steps(trainer: Any, steps: list[BareStep]) -> None:
    """Note each logged step as it comes, by a monotonic clock that starts with the training."""
    from transformers import TrainerCallback

    class Notes(TrainerCallback):
        began = 0.0

        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            self.began = time.monotonic()

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002 - transformers'
            logs = kwargs.get("logs") or {}
            if "loss" in logs:
                seconds = time.monotonic() - self.began
                steps.append(BareStep(step=state.global_step, loss=float(logs["loss"]), seconds=seconds))

    trainer.add_callback(Notes())


if __name__ == "__main__":
    main(sys.argv[1])
