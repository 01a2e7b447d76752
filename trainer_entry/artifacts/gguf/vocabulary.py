"""A tokenizer as GGUF has it: its tokens with their types and order, and how a text is cut before they are looked for.

llama.cpp knows two kinds that are written here: `gpt2`, pairs of bytes that are joined in the order of `merges`, within
pieces that a pattern cuts, which it knows by a name (`tokenizer.ggml.pre`); and `llama`, pairs of characters that are
joined by the score of what they become, with a token for each byte. A tokenizer that is neither is refused.
"""
# mypy: allow-untyped-calls

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from gguf import TokenType
from msgspec import Struct

from trainer_entry.runtime.failures import NotWritable

if TYPE_CHECKING:
    import gguf
    from transformers import PreTrainedTokenizerBase

_SPACE = "\u2581"
_CASELESS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BY_THREES = rf"{_CASELESS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}"
_BY_ONES = rf"{_CASELESS}|{_WORDS}|\p{{N}}|{_REST}"
"""The patterns of Llama 3 and of Qwen 2, which cut numbers by three digits and by one."""
_PAD = "[PAD{}]"
_UNSTRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})
_PHI = ("phi-3", "phi3")
_UNMERGED = -1e6
"""The score of a token that no pair becomes."""


class _AddedToken(Struct, frozen=True):
    id: int
    content: str
    special: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


class _Model(Struct, frozen=True):
    type: str | None = None
    vocab: dict[str, int] | list[Any] = {}
    merges: list[Any] = []
    byte_fallback: bool = False
    ignore_merges: bool = False
    unk_token: str | None = None


class _Tokenizer(Struct, frozen=True):
    """The parts of a `tokenizer.json` that are read."""

    model: _Model
    added_tokens: list[_AddedToken] = []
    normalizer: dict[str, Any] | None = None
    pre_tokenizer: dict[str, Any] | None = None


class Vocabulary(Struct, frozen=True, kw_only=True):
    """A tokenizer. `pre`: the name of the pattern.

    `scores` are of the kind `llama`, `merges` of the kind `gpt2`.

    `space_prefix`: llama.cpp is to put a space before each part of a text; `space_first`: the tokenizer puts one before
    the first. `strips`: special tokens take the spaces after them, as those of Phi 3 do.
    """

    kind: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...] = ()
    merges: tuple[str, ...] = ()
    space_prefix: bool = False
    space_first: bool = False
    strips: bool = False
    warnings: tuple[str, ...] = ()

    def model_name(self, name: str) -> str:
        """What a model may be called in a file.

        llama.cpp takes it by its name for one of the family of Phi 3, whose special tokens take the spaces after them.
        """
        is_phi = any(mark in name.lower() for mark in _PHI)
        if self.strips:
            return name if is_phi else f"{name} (Phi-3)"
        return re.sub("phi-?3", "Phi 3", name, flags=re.IGNORECASE) if is_phi else name

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Write the tokens, and what is done with a text before they are looked for."""
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.kind == "llama":
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.space_prefix)
        else:
            writer.add_token_merges(self.merges)


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, rows: int, *, chats: bool = False) -> Vocabulary:
    """The tokenizer of a model that has an embedding of `rows` tokens. `chats`: it is asked in chats, not in texts.

    Raises:
        NotWritable: llama.cpp would cut texts otherwise.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise NotWritable("The tokenizer is none of the library tokenizers, whose files alone are read.")
    found = msgspec.json.decode(backend.to_str(), type=_Tokenizer)
    model = found.model
    if model.type != "BPE" or not isinstance(model.vocab, dict):
        raise NotWritable(f"The tokenizer is of the kind {model.type}; of those in GGUF only BPE is written.")
    tokens = [_PAD.format(number) for number in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    beyond = 0
    for text, number in model.vocab.items():
        if number >= rows:
            beyond += 1
            continue
        tokens[number], types[number] = text, int(_type_of(text, model))
    for added in found.added_tokens:
        if added.id >= rows:
            beyond += 1
            continue
        is_unknown = model.byte_fallback and added.content == model.unk_token
        kind = TokenType.CONTROL if added.special else TokenType.USER_DEFINED
        tokens[added.id] = added.content
        types[added.id] = int(TokenType.UNKNOWN if is_unknown else kind)
    warnings = _warnings(found, beyond)
    pairs = [_pair(merge) for merge in model.merges]
    if model.byte_fallback:
        prefix, warning = _space_prefix(found, chats=chats)
        return Vocabulary(
            kind="llama",
            pre="default",
            tokens=tuple(tokens),
            types=tuple(types),
            scores=_scores(tokens, pairs),
            space_prefix=prefix,
            space_first=(found.pre_tokenizer or {}).get("prepend_scheme") == "first",
            strips=_strips(found),
            warnings=(*warnings, *warning),
        )
    return Vocabulary(
        kind="gpt2",
        pre=_pre(found),
        tokens=tuple(tokens),
        types=tuple(types),
        merges=tuple(" ".join(pair) for pair in pairs),
        warnings=warnings,
    )


def _type_of(text: str, model: _Model) -> TokenType:
    if model.byte_fallback and text == model.unk_token:
        return TokenType.UNKNOWN
    is_byte = model.byte_fallback and len(text) == len("<0x00>") and text.startswith("<0x") and text.endswith(">")
    return TokenType.BYTE if is_byte else TokenType.NORMAL


def _pair(merge: Any) -> tuple[str, str]:
    """The two sides of a merge, which stand in a list, or in older files in one text."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first, second


def _scores(tokens: list[str], pairs: list[tuple[str, str]]) -> tuple[float, ...]:
    """The higher, the earlier a token is made of two."""
    order: dict[str, int] = {}
    for first, second in pairs:
        order.setdefault(first + second, len(order))
    return tuple(-float(order[text]) if text in order else _UNMERGED for text in tokens)


def _warnings(found: _Tokenizer, beyond: int) -> tuple[str, ...]:
    said: list[str] = []
    if beyond:
        said.append(f"{beyond} tokens of the tokenizer have no row in the model's embedding, and are left out.")
    greedy = [token.content for token in found.added_tokens if token.lstrip or token.rstrip or token.single_word]
    if greedy and not _strips(found):
        said.append(f"The tokenizer takes spaces around {_listed(greedy)} with them, which llama.cpp may leave.")
    if (found.normalizer or {}).get("type") == "NFC":
        said.append("The tokenizer writes letters with their accents as one (NFC), which llama.cpp leaves to the text.")
    return tuple(said)


def _strips(found: _Tokenizer) -> bool:
    """Whether special tokens take the spaces after them in the way of Phi 3."""
    names = {token.content for token in found.added_tokens}
    stripping = {token.content for token in found.added_tokens if token.rstrip}
    return bool(stripping) and stripping == names - _UNSTRIPPED and names >= {*_UNSTRIPPED, "</s>"}


def _listed(words: list[str], most: int = 5) -> str:
    return ", ".join(words[:most]) + (" and others" if len(words) > most else "")


def _steps(step: dict[str, Any] | None, parts: str) -> list[dict[str, Any]]:
    """What is done one after another."""
    if step is None:
        return []
    return list(step[parts]) if step["type"] == "Sequence" else [step]


def _pre(found: _Tokenizer) -> str:
    """The name of the pattern that texts are cut by before pairs are joined.

    Raises:
        NotWritable: it is none of those that are known by a name here.
    """
    normalizers = [step["type"] for step in _steps(found.normalizer, "normalizers")]
    steps = _steps(found.pre_tokenizer, "pretokenizers")
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            name = "gpt-2"
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False} as last]:
            name = "smollm" if last.get("use_regex", True) else ""
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            by_threes = "llama-bpe" if found.model.ignore_merges else "smaug-bpe"
            name = {_BY_THREES: by_threes, _BY_ONES: "qwen2"}.get(str(pattern), "")
        case _:
            name = ""
    if not name or set(normalizers) - {"NFC"}:
        raise NotWritable(
            "The tokenizer cuts texts by rules that are not known here; those of GPT-2, SmolLM2, Llama 3, Qwen 2 are."
        )
    return name


def _space_prefix(found: _Tokenizer, *, chats: bool) -> tuple[bool, tuple[str, ...]]:
    """Whether a text begins as if a space stood before it; llama.cpp then puts one after each special token too.

    Raises:
        NotWritable: more than spaces is changed before tokens are looked for.
    """
    prefix, spaces, warnings = False, False, list[str]()
    for step in _steps(found.normalizer, "normalizers"):
        match step:
            case {"type": "Prepend", "prepend": "\u2581"}:
                prefix = True
            case {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}:
                spaces = True
            case _:
                raise NotWritable(f"The tokenizer changes texts ({step['type']}) in a way that llama.cpp does not.")
    for step in _steps(found.pre_tokenizer, "pretokenizers"):
        match step:
            case {"type": "Metaspace", "replacement": "\u2581", "split": False, "prepend_scheme": scheme}:
                spaces, prefix = True, scheme == "always" or (scheme == "first" and not chats)
                if scheme == "first":
                    kept = "none, so that chats are" if chats else "both, so that texts which begin with a word are"
                    warnings.append(
                        "The tokenizer puts a space before a text, and none after a special token in it; llama.cpp "
                        f"cannot tell these apart, and puts {kept} as they were."
                    )
            case {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"} if spaces:
                pass  # no space is left by then
            case _:
                raise NotWritable(f"The tokenizer cuts texts ({step['type']}) in a way that llama.cpp does not.")
    if not spaces:
        raise NotWritable(f"The tokenizer does not write spaces as {_SPACE}, which llama.cpp does.")
    return prefix, tuple(warnings)
