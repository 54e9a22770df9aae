"""How long answers will be, learned online per tenant and class.

An answer is seen whole, or only its beginning is: the client left, the replica failed, or the
request's own limit cut it. Such a *censored* answer says that it would have been longer than what
was seen. With the rate at which answers end taken as constant, the likeliest mean length is all
tokens seen over the answers that ended (Epstein and Sobel, "Life Testing", JASA 1953): a censored
answer adds its tokens and no end. If every answer is cut, the estimate grows until the limit caps
it, which is right: the limit is then what to expect.

Few answers say little, so the mean of a tenant in a class is drawn towards that of the class, and
that towards the mean of all, as if :attr:`LengthParams.prior_answers` answers of the parent's mean
length had been seen (shrinkage). Old answers are forgotten exponentially.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthParams:
    """``first_guess_tokens``: expected before anything is learned. ``forgetting``: weight that an
    answer keeps per later one of the same tenant and class. ``remembered``: tenants and classes
    kept, least recently seen first to go."""

    first_guess_tokens: float = 256.0
    forgetting: float = 0.98
    prior_answers: float = 4.0
    remembered: int = 4096


class _Mean:
    """Tokens seen and answers ended, both forgotten exponentially."""

    __slots__ = ("ended", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self.ended = 0.0

    def add(self, tokens: int, ended: bool, keep: float) -> None:
        self.tokens = self.tokens * keep + tokens
        self.ended = self.ended * keep + ended

    def drawn_to(self, parent_tokens: float, weight: float) -> float:
        return (self.tokens + weight * parent_tokens) / (self.ended + weight)


class OutputLengths:
    """One per model. The dispatcher asks it for each request and tells it of each end."""

    def __init__(self, params: LengthParams | None = None) -> None:
        self._params = params or LengthParams()
        self._every = _Mean()
        self._classes: dict[str, _Mean] = {}
        self._tenants: OrderedDict[tuple[str, str], _Mean] = OrderedDict()

    def expected_tokens(self, tenant: str, priority_class: str, limit: int) -> int:
        """Output tokens to expect of a request that may generate ``limit`` (0: it generates
        nothing)."""
        if limit <= 0:
            return 0
        p = self._params
        mean = self._every.drawn_to(p.first_guess_tokens, p.prior_answers)
        if (of_class := self._classes.get(priority_class)) is not None:
            mean = of_class.drawn_to(mean, p.prior_answers)
        if (of_tenant := self._tenants.get((tenant, priority_class))) is not None:
            mean = of_tenant.drawn_to(mean, p.prior_answers)
        return max(1, min(limit, round(mean)))

    def observe(
        self, tenant: str, priority_class: str, tokens: int, limit: int, complete: bool
    ) -> None:
        """An answer of ``tokens`` ended. Not ``complete``: it was broken off. One that reached its
        ``limit`` is taken as cut there. Answers without a token say nothing."""
        if tokens <= 0:
            return
        ended, keep = complete and tokens < limit, self._params.forgetting
        self._every.add(tokens, ended, keep)
        of_class = self._classes.get(priority_class)
        if of_class is None:
            of_class = self._classes[priority_class] = _Mean()
        of_class.add(tokens, ended, keep)
        key = (tenant, priority_class)
        of_tenant = self._tenants.get(key)
        if of_tenant is None:
            of_tenant = self._tenants[key] = _Mean()
            if len(self._tenants) > self._params.remembered:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(key)
        of_tenant.add(tokens, ended, keep)
