"""The bytes of single tokens, which can be parts of a character."""
# mypy: allow-untyped-calls

import re

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_WORD_BEGIN = "\N{LOWER ONE EIGHTH BLOCK}"
_LAST_BYTE = 256
_SHOWN = (range(0x21, 0x7F), range(0xA1, 0xAD), range(0xAE, 0x100))
"""The bytes that stand for themselves where each is written as a letter; the others are those from 256 on, in order."""


class TokenBytes:
    """The bytes of a tokenizer's tokens, by its way to write them: letters for bytes, or names of them beside words."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = b"" if backend is None or backend.decoder is None else bytes(backend.decoder.__getstate__())
        kinds = set(re.findall(rb'"type":\s*"(\w+)"', decoder))
        self._letters = _letters() if b"ByteLevel" in kinds else None
        self._joins_words = b"WordPiece" in kinds
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        """The bytes of a token, a space that begins a word among them."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def _find(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        text = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(text, str):  # the model has it, and the tokenizer has not
            return b""
        if self._letters is not None and all(letter in self._letters for letter in text):
            return bytes(self._letters[letter] for letter in text)
        if (byte := _BYTE.fullmatch(text)) is not None:
            return bytes.fromhex(byte[1])
        if self._joins_words:
            return (text[2:] if text.startswith("##") else f" {text}").encode()
        return text.replace(_WORD_BEGIN, " ").encode()


def _letters() -> dict[str, int]:
    """The byte that each letter of a byte-level vocabulary stands for, as GPT-2 began it."""
    shown = [byte for part in _SHOWN for byte in part]
    others = [byte for byte in range(_LAST_BYTE) if byte not in set(shown)]
    return {chr(byte): byte for byte in shown} | {chr(_LAST_BYTE + at): byte for at, byte in enumerate(others)}
