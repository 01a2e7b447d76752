"""Which token comes next, of what the model makes likely and what the request says."""

import random
from collections import Counter

import torch
from msgspec import Struct

from trainer_entry.wire import Generate

_LEAST = -9999.0
"""Of a token that cannot come; JSON has no infinity."""
_COLDEST = 1e-6
"""Of a temperature, which logits of 32 bits are divided by."""
_NUCLEUS_WITHIN = 256
"""So many of the likeliest tokens mostly hold `top_p`; to sort all of a vocabulary takes longer than a token should."""


class Likely(Struct, frozen=True, gc=False):
    """The chosen token's natural log-probability by the model alone, and the likeliest tokens with theirs."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class Choices:
    """Chooses the tokens of one answer. The same seed chooses the same, alone and in company.

    Before temperature and top_p, the logit of a token that stands in the answer n times is lowered by
    `frequency_penalty` times n, and by `presence_penalty` once, as OpenAI's API defines it; the bias is added.
    """

    def __init__(self, request: Generate, device: torch.device) -> None:
        self._request = request
        self._random = random.Random(request.seed)  # noqa: S311 - a sample is no secret
        self._written: Counter[int] = Counter()
        self._biased = torch.tensor([*request.logit_bias], dtype=torch.long, device=device)
        self._bias = torch.tensor([*request.logit_bias.values()], dtype=torch.float32, device=device)
        self._penalizes = bool(request.frequency_penalty or request.presence_penalty)

    def choose(self, logits: torch.Tensor) -> int:
        """The token that comes next; `logits`: of the whole vocabulary, in 32 bits."""
        logits = self._changed(logits)
        token = self._sample(logits) if self._request.temperature > 0 else int(logits.argmax())
        self._written[token] += 1
        return token

    def likely(self, logits: torch.Tensor, chosen: int) -> Likely | None:
        """How likely the model alone found the chosen token, and the likeliest ones; None if nobody asked."""
        if self._request.top_logprobs is None:
            return None
        logprobs = torch.log_softmax(logits, dim=-1)
        found = torch.topk(logprobs, min(self._request.top_logprobs, len(logprobs)))
        top = zip(found.indices.tolist(), found.values.tolist(), strict=True)
        return Likely(_finite(float(logprobs[chosen])), tuple((token, _finite(value)) for token, value in top))

    def _changed(self, logits: torch.Tensor) -> torch.Tensor:
        if not (self._penalizes and self._written) and not self._request.logit_bias:
            return logits
        logits = logits.clone()
        if self._penalizes and self._written:
            written = torch.tensor([*self._written], device=logits.device)
            counts = torch.tensor([*self._written.values()], dtype=logits.dtype, device=logits.device)
            logits[written] -= counts * self._request.frequency_penalty + self._request.presence_penalty
        logits[self._biased] += self._bias
        return logits

    def _sample(self, logits: torch.Tensor) -> int:
        shares = torch.softmax((logits - logits.max()) / max(self._request.temperature, _COLDEST), dim=-1)
        tokens: torch.Tensor | None = None
        if self._request.top_p < 1:
            shares, tokens = self._nucleus(shares)
        sums = shares.cumsum(-1, dtype=torch.float64)
        at = torch.searchsorted(sums, self._random.random() * float(sums[-1]), right=True)
        at = at.clamp(max=len(sums) - 1)
        return int(at if tokens is None else tokens[at])

    def _nucleus(self, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The likeliest tokens that together have `top_p`, and one at least."""
        largest, tokens = torch.topk(shares, min(_NUCLEUS_WITHIN, len(shares)))
        if float(largest.sum()) < self._request.top_p:
            largest, tokens = torch.sort(shares, descending=True)
        before = largest.cumsum(-1) - largest
        count = max(1, int((before < self._request.top_p).sum()))
        return largest[:count], tokens[:count]


def _finite(logprob: float) -> float:
    return max(_LEAST, logprob)  # of what is no number, too
