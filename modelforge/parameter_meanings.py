"""What each parameter of a training means, in a line: as `openapi.json`, the page and docs/training.md say it.

"Chosen" is by task, strategy, model or device, where a parameter is left out.
"""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "num_train_epochs": "passes over the records: 3; 2 for question answering, 1 for `dpo` and `rlhf`",
    "max_steps": "optimizer steps; -1: as many as the epochs take",
    "per_device_train_batch_size": "examples at once, in each process",
    "per_device_eval_batch_size": "the same for evaluations: as in training",
    "gradient_accumulation_steps": "batches in one optimizer step",
    "gradient_checkpointing": (
        "activations are computed again instead of kept: about 20 % slower, as trl says, and the memory of "
        "few layers instead of all; on a GPU, and on the CPU if asked for"
    ),
    "learning_rate": "by task, strategy, and adapter or all weights",
    "lr_scheduler_type": "how the learning rate goes down",
    "warmup_steps": "steps in which it first goes up",
    "warmup_ratio": "the same as a share of all steps; `warmup_steps` wins",
    "weight_decay": "of the optimizer",
    "max_grad_norm": "where gradients are clipped",
    "optim": "the optimizer",
    "seed": "of everything random: order, held-out records, new weights",
    "bf16": "computing in bfloat16: where the GPU is made for it",
    "fp16": "computing in float16: on other GPUs",
    "attn_implementation": (
        "how attention is computed: transformers' own choice (`sdpa` mostly); `eager`, `sdpa`, or on a GPU "
        "where it is installed `flash_attention_2`"
    ),
    "torch_compile": (
        "the model is compiled by `torch.compile` as it is first used: minutes before the first steps, which "
        "are then faster; dropout draws other numbers; it needs a compiler (`g++`) and Python's headers"
    ),
    "liger": (
        "Liger's Triton kernels in the layers of causal models (arXiv 2410.10989): less memory and time on a "
        "GPU; needs the package `liger-kernel`. The loss stays the trainer's own, and preflight reckons "
        "without it"
    ),
    "max_seq_length": "where examples are cut, in tokens: the model's context; 2048 for `unsloth`",
    "truncation": (
        "what goes of a text, chat or preference that is longer than `max_seq_length`: its end; `left`: its "
        "beginning, but for the token that begins it; `drop`: all of it"
    ),
    "packing": (
        "short examples share a sequence and do not see each other, else it is refused; `sft` and `qlora` of "
        "generated text"
    ),
    "group_by_length": (
        "batches of records of like lengths, so that less is filled up; the longest batch is first, and the "
        "order of an epoch depends on `seed` alone"
    ),
    "neftune_noise_alpha": (
        "noise in the embeddings of what is learned, not of evaluations: up to this by the root of a row's "
        "numbers (NEFTune, arXiv 2310.05914; 5 to 15 there); `sft` and `qlora` of causal models"
    ),
    "eval_split": "the share of the records that is held out",
    "eval_steps": "steps between two evaluations: an epoch",
    "logging_steps": "steps between two reports",
    "save_steps": "steps between two checkpoints",
    "save_total_limit": "checkpoints that are kept; null: all",
    "early_stopping_patience": "evaluations without a lower `eval_loss` after which it ends; the best is kept",
    "lora_r": "rank of the adapter",
    "lora_alpha": "its scale",
    "lora_dropout": "its dropout",
    "use_rslora": (
        "the adapter's scale is `lora_alpha` by the root of `lora_r`, and not by `lora_r`: large ranks learn "
        "as fast (arXiv 2312.03732)"
    ),
    "use_dora": (
        "directions and lengths of weights are trained apart: nearer to training all weights at the same "
        "rank, slower, and with more memory (DoRA, arXiv 2402.09353)"
    ),
    "init_lora_weights": (
        "how the adapter begins. true: as peft does; `gaussian`; `orthogonal` (for an even `lora_r`); "
        "`pissa`, or faster `pissa_niter_4` or another number (arXiv 2404.02948), and `olora` (arXiv "
        "2406.01775): as the main part of the weights, which learns faster"
    ),
    "loraplus_lr_ratio": (
        "by how much the second matrix of an adapter learns faster than the first, which has the "
        "`learning_rate` that is reported (LoRA+, arXiv 2402.12354; about 16 there); one-dimensional numbers "
        "learn as the second"
    ),
    "target_modules": "the layers that it is put on: one name, a pattern for whole names, or a list",
    "modules_to_save": (
        'modules that are trained whole beside the adapter, by the ends of their names: `["embed_tokens", '
        '"lm_head"]` for new words; embeddings that are the output too stay one'
    ),
    "use_lora": "false: all weights are trained",
    "weight_dtype": (
        "where all weights are trained, what they are held in: `float32`; `bfloat16` takes half of it for "
        "weights and for gradients, and loses updates that are small beside their weight"
    ),
    "use_4bit": "weights in 4 bits: for `qlora`",
    "use_8bit": "weights in 8 bits",
    "bnb_4bit_quant_type": "the type of 4 bits",
    "bnb_4bit_compute_dtype": "what is computed in: as `bf16` and `fp16` say",
    "use_nested_quant": "the constants of the quantization are quantized too",
    "beta": "how strongly the model is held to its origin: 0.1 for `dpo`; 0.05 for `rloo`, 0.04 for `grpo`",
    "loss_type": "`dpo`: the loss",
    "reward_model": "`rlhf`: a reward model that there is already, named as a model is",
    "reward_functions": "`rlhf`: functions that reward a completion by what can be checked, as names or objects",
    "reward_learning_rate": "`rlhf`: for the reward model",
    "rl_algorithm": "`rlhf`: `rloo` or `grpo`",
    "num_generations": "`rlhf`: completions of a prompt that are compared; divides the batch",
    "max_completion_length": "`rlhf`: their length in tokens",
    "use_vllm": (
        "`rlhf`: completions are written by vLLM in the trainer's process, where it is installed and there is a GPU"
    ),
    "doc_stride": "question answering: tokens that two windows over a context share",
    "num_processes": "processes that train together, one on each GPU, or on the CPU",
    "report_to": (
        "who is told the figures beside the server: `tensorboard`, `wandb`, `mlflow`, `trackio`, or a list of them"
    ),
    "tracker_project": (
        "the project of the run, in MLflow its experiment; null is what the server's environment says, or `modelforge`"
    ),
    "tracker_run": "what the run is called there; null is `output_name` and the job's id",
    "tracker_tags": "words to find the run by, beside task, strategy, provider and model",
}
