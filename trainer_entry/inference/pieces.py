"""An answer's text, sent piece by piece as soon as it is certain."""
# mypy: allow-untyped-calls

from collections import deque

from msgspec import Struct
from transformers import PreTrainedTokenizerBase

from trainer_entry.inference.choices import Likely
from trainer_entry.inference.token_bytes import TokenBytes
from trainer_entry.runtime.stdout import LineWriter
from trainer_entry.wire import LikelyToken, Token, TokenLogprob

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_MOST_LOGPROBS = 64
"""In one line, which must not be too long; a character takes a few tokens, and what is no text takes any number."""


class _Described(Struct, frozen=True, gc=False):
    """A token's probabilities, and where its text begins in the answer, in characters."""

    start: int
    logprob: TokenLogprob


class Pieces:
    """The text of one answer. A character can take several tokens, and a stop several pieces: both are waited for.

    Only the end of the answer is decoded anew for each token, with as much before it as decides about spaces. What is
    sent with a piece of the probabilities is of the tokens whose text begins in it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, spelling: TokenBytes, request_id: int, stops: tuple[str, ...]
    ) -> None:
        self.ids: list[int] = []
        self.stopped = False
        self._ended = False
        self._tokenizer = tokenizer
        self._spelling = spelling
        self._request_id = request_id
        self._stops = tuple(filter(None, stops))
        self._text = ""
        self._sent = 0
        self._context = 0
        self._decoded = 0
        self._waiting: list[TokenLogprob] = []
        self._unsent: deque[_Described] = deque()

    @property
    def text(self) -> str:
        """What was sent."""
        return self._text[: self._sent]

    def add(self, token: int, likely: Likely | None, lines: LineWriter, *, ends: bool) -> None:
        """The next token; `ends`: it ends the answer, and is no part of its text."""
        self.ids.append(token)
        self._ended = ends
        if likely is not None and not ends:
            self._waiting.append(self._describe(token, likely))
        self._take(last=False)
        self._send(self._certain(), lines)

    def end(self, lines: LineWriter) -> None:
        """Nothing follows that could complete a character, or a stop; the last tokens may have no text of their own."""
        if not self.stopped:
            self._take(last=True)
            self._send(len(self._text), lines)
            self._tell("", self._waiting, lines)

    def _take(self, *, last: bool) -> None:
        """Decode what is new, and look for a stop in it."""
        known = self._decode(self.ids[self._context : self._decoded])
        text = self._decode(self.ids[self._context : len(self.ids) - self._ended])
        if len(text) <= len(known) or (text.endswith(_UNFINISHED) and not last):
            return
        start = len(self._text)
        self._unsent.extend(_Described(start, logprob) for logprob in self._waiting)
        self._waiting.clear()
        self._context, self._decoded = self._decoded, len(self.ids)
        self._text += text[len(known) :]
        found = [at for stop in self._stops if (at := self._text.find(stop, max(0, start - len(stop) + 1))) >= 0]
        if found:
            self.stopped = True
            self._text = self._text[: min(found)]

    def _certain(self) -> int:
        """How much of the text can be no part of a stop any more."""
        if self.stopped or not self._stops:
            return len(self._text)
        return len(self._text) - max(_begun(self._text, stop) for stop in self._stops)

    def _send(self, length: int, lines: LineWriter) -> None:
        if length <= self._sent:
            return
        piece = self._text[self._sent : length]
        self._sent = length
        logprobs: list[TokenLogprob] = []
        while self._unsent and self._unsent[0].start < length:
            logprobs.append(self._unsent.popleft().logprob)
        self._tell(piece, logprobs, lines)

    def _tell(self, piece: str, logprobs: list[TokenLogprob], lines: LineWriter) -> None:
        """Send a piece with its probabilities, in as many lines as these take; nothing, where there is neither."""
        for at in range(0, max(len(logprobs), bool(piece)), _MOST_LOGPROBS):
            part = tuple(logprobs[at : at + _MOST_LOGPROBS])
            lines.write(Token(id=self._request_id, text="" if at else piece, logprobs=part))

    def _describe(self, token: int, likely: Likely) -> TokenLogprob:
        spelled = self._spelling.of(token)
        top = []
        for other, logprob in likely.top:
            spelling = self._spelling.of(other)
            top.append(LikelyToken(text=_text_of(spelling), bytes=tuple(spelling), logprob=logprob))
        return TokenLogprob(text=_text_of(spelled), bytes=tuple(spelled), logprob=likely.logprob, top=tuple(top))

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _begun(text: str, stop: str) -> int:
    """How many of the last characters are the first of a stop, at most."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def _text_of(spelling: bytes) -> str:
    return spelling.decode(errors="replace")
