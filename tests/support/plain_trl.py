"""Plain trl, as its own guide has it: python plain_trl.py sft|dpo MODEL DATASET OUTPUT

Writes the loss of each step into OUTPUT, as a JSON list.
"""

import json
import sys
from pathlib import Path
from typing import Any

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

strategy, model, dataset, output = sys.argv[1:]
settings: dict[str, Any] = {
    "output_dir": output + ".trainer",
    "per_device_train_batch_size": 3,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 2,
    "learning_rate": 0.01,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.01,
    "logging_steps": 1,
    "seed": 7,
    "data_seed": 7,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "max_length": 128,
}
records = load_dataset("json", data_files=dataset, split="train", cache_dir=output + ".cache")
given: dict[str, Any] = {
    "model": AutoModelForCausalLM.from_pretrained(model),
    "processing_class": AutoTokenizer.from_pretrained(model),
    "peft_config": LoraConfig(r=8, lora_alpha=16, lora_dropout=0.1, target_modules="all-linear", task_type="CAUSAL_LM"),
}
if strategy == "sft":
    records = records.map(
        lambda record: {"prompt": record["input"] + "\n", "completion": record["output"]},
        remove_columns=records.column_names,
    )
    trainer: SFTTrainer | DPOTrainer = SFTTrainer(args=SFTConfig(**settings), train_dataset=records, **given)
else:
    trainer = DPOTrainer(args=DPOConfig(**settings, beta=0.3), train_dataset=records, **given)
trainer.train()
Path(output).write_text(json.dumps([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))
