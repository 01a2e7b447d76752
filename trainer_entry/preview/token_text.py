"""The texts that tokens stand for, one by one: put together, they are the text that the tokens are decoded to."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_BEFORE = 4
"""So many tokens before a token decide about a space in front of it, or its first letter."""
_LONGEST_CHARACTER = 8
"""After so many tokens that make no character together none will come of them."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token, special ones included; empty for a part of a character that a later one completes."""
    texts: list[str] = []
    done = 0  # the tokens before have their texts
    for place in range(len(ids)):
        begin = max(0, done - _BEFORE)
        known = _decoded(tokenizer, ids[begin:done])
        text = _decoded(tokenizer, ids[begin : place + 1])
        is_last = place + 1 == len(ids) or place + 1 - done >= _LONGEST_CHARACTER
        if text.endswith(_UNFINISHED) and not is_last:
            texts.append("")
            continue
        texts.append(text[len(known) :] if text.startswith(known) else _decoded(tokenizer, ids[done : place + 1]))
        done = place + 1
    return texts


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
