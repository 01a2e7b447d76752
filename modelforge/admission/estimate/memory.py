"""How much memory a training takes, in bytes: pure formulas, each with where it comes from.

Peaks of real trainings on the CPU were measured against them, by `benchmarks/memory.py`.
"""

import msgspec
from msgspec import Struct

from modelforge.admission.estimate.adapters import (
    embeddings,
    has_tied_head,
    linear_layers,
    saved_weights,
    targeted_layers,
)
from modelforge.admission.estimate.architecture import Architecture
from modelforge.admission.estimate.weights import Weight
from trainer_entry import wire

PROCESS_BYTES = 650_000_000
"""The interpreter with torch, transformers, trl and peft (measured); on a GPU, about what a CUDA context takes."""

TRACKER_BYTES: dict[wire.Tracker, int] = {
    "tensorboard": 50_000_000,
    "wandb": 110_000_000,
    "mlflow": 240_000_000,
    "trackio": 80_000_000,
}
"""The process of a tracker and its children (measured: their import, and 300 steps told)."""

_FLOAT32, _FLOAT16 = 4, 2
_LOGITS_COPIES = 5  # fitted to peaks: the logits, their log-probabilities and gradients, and what glibc keeps of more
_LOGITS_KEPT = 3  # the same where it keeps nothing: as trainers are launched that compute activations again
_ATTENTION_COPIES = 3  # fitted to peaks: what each token sees of each other, what was left of that, and a gradient
_TILE_COPIES = 7  # fitted to peaks: a tile of logits, scaled, exponentiated, its gradient, and what these come through
_HOLES = 1.3  # fitted to peaks: what glibc's heap grows by for a reward model, beside what sft fits in
_DORA_OUTPUTS = 3  # what its layer gives without the adapter, what the adapter gives, and their sum
_DORA_MATRICES = 4  # for one layer at a time: an identity, the adapter as a matrix, its sum with the weight, a copy
_TILE_TOKENS, _TILE_WORDS = 4096, 32_768  # trl's
_PIECE_BYTES, _PIECE_TOKENS = 16 << 20, 16  # of the trainer's own head (loss_head): logits of so many, or of so few
_PIECE_COPIES = 5  # fitted to peaks: logits, their log-probabilities, and what glibc keeps of more
_BLOCK, _OUTER_BLOCK = 64, 256
_MATRIX = 2


class Sizes(Struct, frozen=True, kw_only=True, gc=False):
    """Numbers of a model, counted once. `layers`: in linear layers, those that quantisation is for.

    `factors`: what Adafactor keeps, a row and a column of each trained matrix. `outputs`: numbers that the layers
    with an adapter give for one token. `embedded`: those of `trainable` in embeddings. `saved`: those of `trainable` in
    modules that are trained whole beside an adapter, in a copy; `twice`: those of them that a file has as embeddings
    and as the output. `largest`: numbers of the largest layer with an adapter.
    """

    parameters: int
    layers: int
    trainable: int
    factors: int
    outputs: int
    embedded: int = 0
    saved: int = 0
    twice: int = 0
    largest: int = 0

    @property
    def adapter(self) -> int:
        """Numbers of the adapter alone."""
        return self.trainable - self.saved


class Plan(Struct, frozen=True, kw_only=True, gc=False):
    """What of a training its memory depends on. `compute_bytes`: of a number as it is computed with, 2 or 4.

    `length`: of a sequence in tokens, with its completion where a policy learns. `answer`: of what a decoder writes
    apart from the text that an encoder reads. `on_gpu`: where it is computed. `judged`: a reward model stands beside
    the policy, and is trained first unless one is given. `evaluates`: on records that are held out.
    """

    task: wire.Task
    strategy: wire.Strategy
    parameters: wire.TrainingParameters
    compute_bytes: int
    batch_size: int
    length: int
    answer: int | None = None
    on_gpu: bool = False
    judged: bool = True
    evaluates: bool = False

    @property
    def tracker_bytes(self) -> int:
        """What the processes of trackers take, which is the machine's memory and no GPU's."""
        return 0 if self.on_gpu else sum(TRACKER_BYTES[tracker] for tracker in self.parameters.trackers)

    @property
    def written(self) -> int:
        """Tokens that have logits, in each sequence: `max_seq_length` cuts a text and an answer apart from it alike."""
        return self.length if self.answer is None else min(self.answer, self.length)

    @property
    def bits(self) -> int | None:
        """To how many bits the frozen weights are compressed, if they are."""
        if self.parameters.use_8bit:
            return 8
        in_four = self.parameters.use_4bit
        return 4 if in_four or (in_four is None and self.strategy == "qlora") else None

    @property
    def trained_bytes(self) -> int:
        """Of a number that is trained: 4, unless all weights are held in 16 bits."""
        return _FLOAT16 if self.parameters.weight_dtype == "bfloat16" and not self.parameters.use_lora else _FLOAT32


class Memory(Struct, frozen=True, kw_only=True, gc=False):
    """What a training takes at its peak."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, with the process itself."""
        return self.weights + self.gradients + self.optimizer + self.activations + PROCESS_BYTES


def sizes_of(weights: tuple[Weight, ...], parameters: wire.TrainingParameters) -> Sizes:
    """Count what matters: an adapter of rank r on a layer of m inputs and n outputs has r (m + n) numbers.

    LoRA, arXiv 2106.09685, section 4.1: two matrices a layer. DoRA, arXiv 2402.09353, section 4.1: and one number for
    each output. What is named in `modules_to_save` is trained whole, and has no adapter.
    """
    whole = sum(weight.size for weight in weights)
    layers = sum(weight.size for weight in linear_layers(weights))
    if not parameters.use_lora:
        factors = _factors(weights)
        embedded = sum(weight.size for weight in embeddings(weights))
        return Sizes(parameters=whole, layers=layers, trainable=whole, factors=factors, outputs=0, embedded=embedded)
    whole_modules = saved_weights(weights, parameters.modules_to_save or ())
    targets = [one for one in targeted_layers(weights, parameters.target_modules) if one not in whole_modules]
    rank, edges = parameters.lora_r, sum(sum(weight.shape) for weight in targets)
    outputs, saved = sum(weight.shape[0] for weight in targets), sum(weight.size for weight in whole_modules)
    embedded = sum(weight.size for weight in embeddings(whole_modules))
    return Sizes(
        parameters=whole,
        layers=layers,
        trainable=rank * edges + (outputs if parameters.use_dora else 0) + saved,
        factors=edges + 2 * rank * len(targets) + (outputs if parameters.use_dora else 0) + _factors(whole_modules),
        outputs=outputs,
        embedded=embedded,
        saved=saved,
        twice=embedded if has_tied_head(weights) else 0,
        largest=max((weight.size for weight in targets), default=0),
    )


def _factors(weights: tuple[Weight, ...]) -> int:
    return sum(sum(weight.shape) if len(weight.shape) == _MATRIX else weight.size for weight in weights)


def memory_of(plan: Plan, sizes: Sizes, architecture: Architecture | None) -> Memory:
    """The estimate: every part at its largest, though not all of them are at once.

    Of several phases it is the one that takes the most. Without an architecture the activations are left out.
    """
    if plan.strategy != "rlhf":
        activations = 0 if architecture is None else activations_bytes(plan, sizes, architecture)
        return _phase(plan, sizes, activations, reference=plan.strategy == "dpo")
    learns, judges = (0, 0) if architecture is None else _both_bytes(plan, sizes, architecture)
    policy = _phase(plan, sizes, learns, reference=True)
    if not plan.judged:
        return policy
    judged = msgspec.structs.replace(policy, weights=policy.weights + _frozen_bytes(plan, sizes))
    if plan.parameters.reward_model is not None:
        return judged
    return max(judged, _phase(plan, sizes, judges, reference=False), key=lambda phase: phase.total)


def _phase(plan: Plan, sizes: Sizes, activations: int, *, reference: bool) -> Memory:
    return Memory(
        weights=weights_bytes(plan, sizes, reference=reference),
        gradients=plan.trained_bytes * sizes.trainable,
        optimizer=optimizer_bytes(plan.parameters.optim, sizes, plan.trained_bytes),
        activations=activations,
    )


def weights_bytes(plan: Plan, sizes: Sizes, *, reference: bool = False) -> int:
    """The model, the adapter, and the model that it is held to: itself without its adapter, or a copy in 32 bits.

    All weights trained: as they are held, and where that is in 32 bits, 2 bytes more for the copy that autocast keeps
    when it computes in 16. Frozen: as they are computed with, or in 4 or 8 bits.
    """
    if plan.parameters.use_lora:
        cast = _FLOAT16 * sizes.saved if plan.compute_bytes < _FLOAT32 else 0
        return _FLOAT32 * sizes.trainable + cast + _frozen_bytes(plan, sizes)
    copy = _FLOAT16 if plan.compute_bytes < plan.trained_bytes else 0
    return (plan.trained_bytes + copy + (_FLOAT32 if reference else 0)) * sizes.parameters


def _frozen_bytes(plan: Plan, sizes: Sizes) -> int:
    """A model that is not trained itself.

    4 bits: half a byte, and for each 64 a constant of 4 bytes, or with nested quantisation of 1 byte and of 4 bytes for
    each 256 of these (QLoRA, arXiv 2305.14314, section 3). What is no linear layer stays as it is computed with.
    """
    if plan.bits is None:
        return plan.compute_bytes * sizes.parameters
    constant = (1 + _FLOAT32 / _OUTER_BLOCK) if plan.parameters.use_nested_quant else _FLOAT32
    each_layer = 1.0 if plan.bits == 8 else 0.5 + constant / _BLOCK  # noqa: PLR2004 - bits
    return int(each_layer * sizes.layers) + plan.compute_bytes * (sizes.parameters - sizes.layers)


def optimizer_bytes(optim: wire.Optimizer, sizes: Sizes, trained_bytes: int = _FLOAT32) -> int:
    """Adam: two numbers a parameter of its type (arXiv 1412.6980), of 1 byte each in 8 bits (arXiv 2110.02861).

    transformers leaves those of embeddings in 32 bits there, as section 2.3 of that paper says.
    Adafactor: a row and a column a matrix (arXiv 1804.04235). Plain SGD has no state.
    """
    match optim:
        case "adamw_torch" | "adamw_torch_fused":
            return 2 * trained_bytes * sizes.trainable
        case "adamw_8bit" | "paged_adamw_8bit":
            return 2 * (sizes.trainable - sizes.embedded) + 2 * _FLOAT32 * sizes.embedded
        case "adafactor":
            return _FLOAT32 * sizes.factors
        case "sgd":
            return 0


def activations_bytes(plan: Plan, sizes: Sizes, architecture: Architecture) -> int:
    """What the backward pass needs, and the logits."""
    tokens = plan.batch_size * plan.length * (2 if plan.strategy == "dpo" else 1)  # chosen and rejected
    words = _words(plan, architecture)
    tiled = plan.strategy == "dpo" or (plan.on_gpu and not architecture.encoder_decoder)
    copies = _LOGITS_KEPT if plan.parameters.gradient_checkpointing and not plan.on_gpu else _LOGITS_COPIES
    logits = copies * _FLOAT32 * plan.batch_size * plan.written * words
    layers = _layers_bytes(plan, tokens, sizes, architecture)
    if not plan.on_gpu and _has_loss_head(plan, architecture):
        return layers + _pieces_bytes(plan, tokens, architecture)
    head = _tiles_bytes(plan, tokens, architecture) if tiled else logits
    return max(layers + head, evaluation_bytes(plan, architecture))


def _has_loss_head(plan: Plan, architecture: Architecture) -> bool:
    """Whether logits are made piece by piece: where a causal model learns answers, and its head is as it came."""
    parameters, targets = plan.parameters, plan.parameters.target_modules
    answers = plan.strategy in {"sft", "qlora"} and plan.task != "extractive-question-answering"
    changed = parameters.modules_to_save or (
        targets != "all-linear"
        and (isinstance(targets, str) or any("head" in name or "embed" in name for name in targets))
    )
    leaves = not parameters.use_lora or not changed
    return answers and leaves and not (architecture.encoder_decoder or parameters.fp16 or parameters.torch_compile)


def _pieces_bytes(plan: Plan, tokens: int, architecture: Architecture) -> int:
    """A piece of the logits, what the head is given, its gradient, and that of the head where it is trained.

    In 16 bits a piece is there in them too, before and after, and the head in a copy.
    """
    piece = max(_PIECE_BYTES, _FLOAT32 * _PIECE_TOKENS * architecture.vocabulary)
    matrix, short = architecture.vocabulary * architecture.hidden, plan.compute_bytes < _FLOAT32
    head = (0 if plan.parameters.use_lora else _FLOAT32 * matrix) + (_FLOAT16 * matrix if short else 0)
    return (_PIECE_COPIES + short) * piece + 2 * _FLOAT32 * tokens * architecture.hidden + head


def _words(plan: Plan, architecture: Architecture) -> int:
    """How many numbers are given for a token: of an answer's span its begin and its end."""
    return 2 if plan.task == "extractive-question-answering" else architecture.vocabulary


def _both_bytes(plan: Plan, sizes: Sizes, architecture: Architecture) -> tuple[int, int]:
    """The activations of a policy, and those of its reward model.

    A policy writes the completions of a whole step at once, whose keys and values are kept, and then learns from them.
    A reward model gives one number for each of two answers: it has no logits. Its answers are filled up to one length,
    so attention takes a mask and keys and values are repeated for each head (transformers' `repeat_kv`); and on the CPU
    the heap grew by 20,800 numbers a token and layer where autograd kept 11,000, for glibc does not use all its holes.
    """
    tokens = plan.batch_size * plan.length
    written = tokens * plan.parameters.gradient_accumulation_steps
    cache = plan.compute_bytes * written * architecture.layers * architecture.cached
    learns = _layers_bytes(plan, tokens, sizes, architecture) + _tiles_bytes(plan, tokens, architecture)
    answers = 2 * plan.batch_size * max(1, plan.length - plan.parameters.max_completion_length)
    judges = _layers_bytes(plan, answers, sizes, architecture)
    return max(learns, cache), judges if plan.on_gpu else int(_HOLES * judges)


def _layers_bytes(plan: Plan, tokens: int, sizes: Sizes, architecture: Architecture) -> int:
    """What all layers keep for their gradients.

    A layer keeps 34 s b h bytes in 16 bits, twice that in 32 (Korthikanti et al., arXiv 2205.05198, equation 1; less
    2 s b h for masks of dropout), here by its parts: 8 h numbers of attention, norms and residuals, and of the
    feed-forward part 2 i, or 4 i where that is gated. Its 5 a s² b, of what attention sees, what it leaves out at
    random and the rest, falls away where that is computed in tiles (FlashAttention, arXiv 2205.14135): on the CPU torch
    does so only without dropout. A decoder apart sees its own answer and the text; half of the layers are reckoned to
    be its. An adapter adds the output of its layer once more: fitted to peaks on the CPU,
    where heaps grew by 12,800 to 19,600 numbers a token and layer and autograd kept 10,100; this says 15,900. With
    checkpointing: the input of each layer, and one whole layer (section 5 there).
    """
    kept = 8 * architecture.hidden + (4 if architecture.gated else 2) * architecture.intermediate
    adapter = sizes.outputs // architecture.layers if plan.parameters.use_lora else 0
    seen = plan.length * tokens
    if architecture.encoder_decoder:
        texts, answers = tokens, plan.batch_size * plan.written
        seen = (texts * plan.length + answers * (plan.written + plan.length)) // 2
        tokens = (texts + answers) // 2
    if plan.parameters.use_dora:
        adapter *= _DORA_OUTPUTS
    layer = plan.compute_bytes * tokens * (kept + adapter)
    if architecture.drops and not plan.on_gpu:
        layer += (_ATTENTION_COPIES * plan.compute_bytes + 1) * architecture.heads * seen
    norms = _DORA_MATRICES * plan.compute_bytes * sizes.largest if plan.parameters.use_dora else 0
    if plan.parameters.gradient_checkpointing:
        return plan.compute_bytes * tokens * architecture.hidden * architecture.layers + layer + norms
    return layer * architecture.layers + norms


def _tiles_bytes(plan: Plan, tokens: int, architecture: Architecture) -> int:
    """The head by trl's kernel, which makes logits tile by tile, and gradients of its input in 32 bits.

    On a GPU a tile is changed in place; elsewhere torch makes new ones of it, of 32 bits.
    """
    tile = min(tokens, _TILE_TOKENS) * _TILE_WORDS
    tiles = plan.compute_bytes * tile if plan.on_gpu else _TILE_COPIES * _FLOAT32 * tile
    head = 0 if plan.parameters.use_lora else _FLOAT32 * architecture.vocabulary * architecture.hidden
    return tiles + _FLOAT32 * tokens * architecture.hidden + head


def evaluation_bytes(plan: Plan, architecture: Architecture) -> int:
    """The logits of an evaluation and their log-probabilities; nothing else is kept."""
    if not plan.evaluates:
        return 0
    words = _words(plan, architecture)
    rows = plan.parameters.per_device_eval_batch_size or plan.batch_size
    return 2 * _FLOAT32 * rows * plan.written * words


def largest(plan: Plan, sizes: Sizes, architecture: Architecture, field: str, most: int, room: int) -> int | None:
    """The largest `batch_size` or `length`, up to `most`, with which a training fits into `room` bytes; None: not 1."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        tried = msgspec.structs.replace(plan, **{field: middle})
        low, high = (middle, high) if memory_of(tried, sizes, architecture).total <= room else (low, middle - 1)
    return low or None
