"""A training tried out before it is started, without the model's weights: what it would fail at, it fails at here."""
# mypy: allow-untyped-calls

from collections.abc import Iterator
from typing import Any

import msgspec

from trainer_entry.data.embedding import check_line, check_padding
from trainer_entry.preview import length_statistics
from trainer_entry.preview.sequences import TokenizationContext, TokenizedExample
from trainer_entry.providers.huggingface import embedded_tokens, model_class
from trainer_entry.runtime.failures import NoSuchLayers, NoTrainableTokens
from trainer_entry.wire import Trial

_ALL_LAYERS = "all-linear"


def places_of(count: int, sample: int) -> frozenset[int] | None:
    """Which of `count` records are tried: the first half of `sample`, and as many spread over all; None: each."""
    if count <= sample:
        return None
    spread = length_statistics.places_of(count, sample - sample // 2)
    return frozenset(range(sample // 2)).union(spread or ())


def try_out(examples: Iterator[TokenizedExample], context: TokenizationContext) -> Trial:
    """Read the records, and put the adapter that is asked for on a model that has no weights.

    Raises:
        NoChatTemplate, ChatTemplateFails: the model's template cannot write one of the records.
        TokenWithoutEmbedding: the tokenizer has more tokens than the model, and writes one of them.
        NoTrainableTokens: these are all records, and none has something to learn.
        NoSuchLayers: the adapter finds no layer to be put on.
        NotTrainedWhole: a module that is to be trained whole is not there, or cannot be.
    """
    tokenizer, known = context.source.tokenizer, embedded_tokens(context.source.config)
    has_more = known is not None and len(tokenizer) > known
    if known is not None and has_more:
        check_padding(known, tokenizer)
    lines: set[int] = set()
    reasons: list[str] = []
    learns = False
    for example in examples:
        lines.add(example.line)
        if example.left_out is not None:
            reasons.append(f"Line {example.line}: {example.left_out}")
            continue
        learns = True
        for sequence in example.sequences if known is not None and has_more else ():
            check_line(example.line, sequence.ids, known or 0, tokenizer)
    if not learns and len(lines) >= context.job.dataset.num_examples and reasons:
        raise NoTrainableTokens(f"No record has something to learn. {reasons[0]}")
    parameters = context.parameters
    if parameters.use_lora and (parameters.target_modules != _ALL_LAYERS or parameters.modules_to_save is not None):
        _try_adapter(context)
    return Trial(records=len(lines))


def _try_adapter(context: TokenizationContext) -> None:
    import torch  # what follows takes a second, which most trials need not
    from peft import get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    from trainer_entry.strategies.adapters import lora_config
    from trainer_entry.strategies.whole_modules import whole_modules

    config, task, target = context.source.config, context.job.task, context.parameters.target_modules
    with torch.device("meta"):
        model: Any = model_class(config, task).from_config(config)
        whole = whole_modules(model, context.parameters)
        encoder_decoder = bool(config.is_encoder_decoder)
        plain = msgspec.structs.replace(context.parameters, init_lora_weights=True)  # without weights nothing is taken
        adapter = lora_config(plain, task, encoder_decoder=encoder_decoder, whole=whole)
        try:
            adapted: Any = get_peft_model(model, adapter)
        except Exception as error:  # peft, and the pattern's own library, have many
            raise NoSuchLayers(f"target_modules {target!r}: {error}") from error
    head = adapted.get_output_embeddings() if adapted.can_generate() else None
    if isinstance(head, BaseTunerLayer) and not config.is_encoder_decoder:
        raise NoSuchLayers(
            f"target_modules {target!r} has the layer that gives the output, which trl does not train an adapter on: "
            "leave it out."
        )
