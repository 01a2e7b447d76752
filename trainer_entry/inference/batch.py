"""Answers that are written together: one pass of the model gives each its next token."""
# mypy: allow-untyped-calls

import inspect
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from trainer_entry.inference.answers import Answer
from trainer_entry.inference.models import Models
from trainer_entry.providers import huggingface
from trainer_entry.providers.huggingface import LoadedModel
from trainer_entry.runtime.stdout import note

_TRIED = (3, 5)
"""The tokens of two texts that a model is tried with."""
_SAME = 0.02
"""How far logits may lie apart, of their whole width: rounding in 16 bits takes less, a wrong place takes more."""

_BY_THE_LONGEST = frozenset({"dynamic", "longrope"})
"""Rotary positions that are others where a text is long, which no trial of short ones shows."""


class Row:
    """An answer in a batch, or on its way there: `read` of its tokens are in a cache."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.adapter = answer.request.adapter_path
        self.read = 0
        self.cache: Any = None

    @property
    def tokens(self) -> list[int]:
        """All that the model has to know: the prompt, and what was written."""
        return self.answer.prompt + self.answer.written

    def forget(self) -> None:
        """Give up its cache; it can be read anew."""
        self.read, self.cache = 0, None


class Batch:
    """Rows with one cache, in which the shorter ones stand at the right, and what is left of them is masked."""

    def __init__(self, loaded: LoadedModel, models: Models) -> None:
        self.rows: list[Row] = []
        self._loaded = loaded
        self._models = models
        self._cache: Any = None
        self._is_whole = True
        self._taken = frozenset(inspect.signature(loaded.model.forward).parameters)

    @property
    def width(self) -> int:
        """How many tokens the longest row has in the cache."""
        return max((row.read for row in self.rows), default=0)

    def cached_bytes(self) -> int:
        """What the cache takes."""
        return 0 if self._cache is None else sum(part.nbytes for part in _tensors(self._cache))

    def read_on(self, row: Row, most: int) -> bool:
        """Read the next of a row's tokens, at most so many; with the last of them, which is true, the row joins.

        Raises:
            Exception: the model's own; the others are as they were, or `scattered` has them.
        """
        if row.cache is None:
            row.cache = DynamicCache()
        tokens = row.tokens
        part = tokens[row.read : row.read + most]
        logits = self._run([row.adapter], [part], [row.read], row.cache)
        row.read += len(part)
        if row.read < len(tokens):
            return False
        row.answer.take(logits[0])
        if not row.answer.is_over:
            self._join(row)
        return True

    def step(self) -> None:
        """Write the next token of each row.

        Raises:
            Exception: the model's own; the rows are then as they were before.
        """
        width = self.width
        try:
            logits = self._run(
                [row.adapter for row in self.rows],
                [row.answer.written[-1:] for row in self.rows],
                [row.read for row in self.rows],
                self._cache,
            )
        except BaseException:
            self._change(lambda part: part[..., :width, :])
            raise
        for row, its in zip(self.rows, logits, strict=True):
            row.read += 1
            row.answer.take(its)

    def take_out(self, gone: list[Row]) -> None:
        """Let rows go, and with them what only they needed of the cache.

        Raises:
            Exception: there is no memory for it; `scattered` has the others.
        """
        before, kept = self.width, [at for at, row in enumerate(self.rows) if row not in gone]
        self.rows = [self.rows[at] for at in kept]
        for row in gone:
            row.forget()
        if not self.rows:
            self._cache = None
        elif gone:
            trimmed = before - self.width
            self._change(lambda part: part[kept][..., trimmed:, :])

    def _join(self, row: Row) -> None:
        if self._cache is None:
            self._cache = row.cache
        else:
            width = max(self.width, row.read)
            self._is_whole = False
            for mine, its in zip(self._cache.layers, row.cache.layers, strict=True):
                if mine.keys is not None:
                    mine.keys, mine.values = (
                        _stacked(mine.keys, its.keys, width),
                        _stacked(mine.values, its.values, width),
                    )
                its.keys = its.values = None
            self._is_whole = True
        row.cache = None
        self.rows.append(row)

    def scattered(self) -> list[Row]:
        """The rows, where a change of the cache failed half way; they are to be read anew."""
        if self._is_whole:
            return []
        rows, self.rows, self._cache, self._is_whole = self.rows, [], None, True
        for row in rows:
            row.forget()
        return rows

    def _change(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._is_whole = False
        for layer in self._cache.layers:
            if layer.keys is not None:
                layer.keys, layer.values = change(layer.keys), change(layer.values)
        self._is_whole = True

    def _run(self, adapters: list[str | None], tokens: list[list[int]], before: list[int], cache: Any) -> torch.Tensor:
        """The logits after the last of each row's new tokens, (rows, vocabulary).

        `tokens`: the new ones, of all rows equally many; `before`: how many of each row are in the cache.
        """
        device, new = self._loaded.model.device, len(tokens[0])
        known = torch.tensor(before, device=device)[:, None]
        width = max(before)
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor(tokens, device=device),
            "attention_mask": (torch.arange(width + new, device=device) >= width - known).long(),
            ("cache" if "cache" in self._taken else "past_key_values"): cache,
            "use_cache": True,
        }
        if "position_ids" in self._taken:
            inputs["position_ids"] = known + torch.arange(new, device=device)
        if "logits_to_keep" in self._taken:
            inputs["logits_to_keep"] = 1
        with torch.inference_mode():
            logits: torch.Tensor = self._models.run(self._loaded, adapters, **inputs).logits
        return logits[:, -1]


def can_join(loaded: LoadedModel, models: Models) -> bool:
    """Whether a model writes the same in a batch as alone: it keeps keys and values alone, and a trial says so.

    Not by its architecture's name: of those that count positions in a way of their own there is no list.
    """
    if not _keeps_keys_alone(loaded.model):
        return False
    try:
        return _is_tried(loaded, models)
    except Exception as error:  # noqa: BLE001 - whatever it says, it can be asked in transformers' own way
        note(f"The model's answers are not written together: {type(error).__name__}: {error}")
        return False


def _keeps_keys_alone(model: Any) -> bool:
    taken = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not taken.keys() & {"cache", "past_key_values"}:
        return False
    if getattr(model, "_is_stateful", False) or not model._supports_default_dynamic_cache():  # noqa: SLF001
        return False
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}  # none, for a model of before them
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer} and not _turns_by_the_longest(model.config)


def _turns_by_the_longest(config: Any) -> bool:
    """Whether the longest row decides how positions turn keys, those of the others and those in the cache too."""
    turns = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    each = [turns, *(turn for turn in turns.values() if isinstance(turn, dict))]  # one a kind of layer, or one of all
    return any(turn.get("rope_type") in _BY_THE_LONGEST for turn in each)


def _is_tried(loaded: LoadedModel, models: Models) -> bool:
    """Read two texts, join them, go on, and compare with the model's own word for each."""
    known = huggingface.embedded_tokens(loaded.config) or len(loaded.tokenizer)
    texts = [[(7 + 31 * at + 5 * length) % known for at in range(length + 1)] for length in _TRIED]
    trial = Batch(loaded, models)
    caches: list[Any] = [DynamicCache() for _ in texts]
    model: Any = loaded.model
    with torch.inference_mode():
        models.switch(None)
        truths = [model(input_ids=torch.tensor([text], device=model.device)).logits for text in texts]
        for text, cache in zip(texts, caches, strict=True):
            trial._run([None], [text[:-1]], [0], cache)  # noqa: SLF001 - its own trial
        for mine, its in zip(caches[0].layers, caches[1].layers, strict=True):
            if mine.keys is not None:
                mine.keys = _stacked(mine.keys, its.keys, max(_TRIED))
                mine.values = _stacked(mine.values, its.values, max(_TRIED))
        said = trial._run([None, None], [text[-1:] for text in texts], [*_TRIED], caches[0])  # noqa: SLF001
    for truth, its in zip(truths, said, strict=True):
        right = truth[0, -1].float()
        if not float((right - its.float()).abs().max()) <= _SAME * float(right.max() - right.min()):
            note("The model's answers are not written together: in company it says something else.")
            return False
    return True


def _stacked(some: torch.Tensor, more: torch.Tensor, width: int) -> torch.Tensor:
    """Keys or values (rows, heads, tokens, size) of both, which end at the same place."""
    both = some.new_zeros(len(some) + len(more), some.shape[1], width, some.shape[3])
    both[: len(some), :, width - some.shape[2] :] = some
    both[len(some) :, :, width - more.shape[2] :] = more
    return both


def _tensors(cache: Any) -> list[torch.Tensor]:
    return [part for layer in cache.layers if layer.keys is not None for part in (layer.keys, layer.values)]
