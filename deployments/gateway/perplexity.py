"""How likely two answers to one prompt are to a third model, for judging a candidate.

The prompt is rendered with that model's own chat template, each answer is put behind it, and the
model is asked for the log-probabilities of what it is given, as any client can ask it (``echo`` of
a completion of no tokens). Both answers are one request, of a tenant of their own and in the least
urgent class, after the client has its answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from deployments import wire
from deployments.gateway.bodies import ChatBody, CompletionBody, TextBody
from deployments.gateway.dialects import DIALECTS, Dialect
from deployments.gateway.model import Model
from deployments.gateway.request import Door, MemoryDoor
from deployments.gateway.sink import MemorySink, Sink
from weir.errors import WeirError
from weir.settings.rollout import PerplexitySettings
from weir.tenancy import Caller, Key, Quotas, Tenant

_LOG = logging.getLogger("weir.gateway")
#: Who asks models that judge: no tenant's quota, budget or bill.
JUDGE = "weir-judge"
PATHS: dict[type[TextBody], str] = {
    ChatBody: "/v1/chat/completions",
    CompletionBody: "/v1/completions",
}
_SCORING = DIALECTS.paths["/v1/completions"]
_ANSWERED = b"x-weir-model-answered"
Ask = Callable[[Dialect, Door, Sink], Awaitable[None]]
"""The gateway, for a caller in its process."""


class Perplexity:
    """``lazy``: the least urgent class."""

    def __init__(self, models: Mapping[str, Model], lazy: str) -> None:
        self._models = models
        self._lazy = lazy
        self._silent = False

    async def compared(
        self, ask: Ask, settings: PerplexitySettings, body: TextBody, live: str, candidate: str
    ) -> float | None:
        """By how many nats per token ``candidate`` is less likely than ``live``, both answers to
        ``body``; None where that cannot be told: an answer is empty, the prompt is not text, or
        the model does not answer now."""
        # Of equal answers one is asked for: where the model is away, they must not count either.
        answers = list(dict.fromkeys((live, candidate)))
        try:
            given = await self._given(settings.model, body, answers)
            if given is None:
                return None
            scored = await self._scored(ask, settings, [prompt + ids for prompt, ids in given])
        except WeirError as error:
            # The model's fault, or that of a prompt which is too long for it.
            if not self._silent:
                told = {"model": settings.model, "reason": error.message}
                _LOG.info("answers are not scored now", extra=told)
            self._silent = True
            return None
        self._silent = False
        means = [_mean(each[-len(ids) :]) for (_, ids), each in zip(given, scored, strict=True)]
        found = {text: mean for text, mean in zip(answers, means, strict=True) if mean is not None}
        return found[live] - found[candidate] if len(found) == len(answers) else None

    async def _given(
        self, name: str, body: TextBody, answers: Sequence[str]
    ) -> list[tuple[list[int], list[int]]] | None:
        """The prompt and each answer, as token ids of the model that judges.

        Raises:
            WeirError: its template refuses the conversation, or it is too long.
        """
        model = self._models.get(name)
        if model is None or not _is_text(body):
            return None
        if model.waking.sleeps:
            model.waking.asked(self._lazy)
            return None
        dialect = DIALECTS.paths[PATHS[type(body)]]
        (prompt,) = await dialect.prompts(body, model.encoding(JUDGE, _size(body)))
        encoding = model.encoding(JUDGE, sum(map(len, answers)))
        ids = await encoding.prompts(list(answers), "prompt", False)
        return [(prompt, each) for each in ids] if all(ids) else None

    async def _scored(
        self, ask: Ask, settings: PerplexitySettings, prompts: list[list[int]]
    ) -> list[list[wire.Scored]]:
        """Each prompt's tokens with their log-probabilities; nothing where another model, or
        nobody, has answered.

        Raises:
            WeirError: the gateway's answer.
        """
        body = {"model": settings.model, "prompt": prompts, "echo": True, "max_tokens": 0}
        text = json.dumps({**body, "logprobs": 0, "temperature": 0})
        tenant = Tenant(
            JUDGE,
            classes=(self._lazy,),
            quotas=Quotas(prompt_tokens_per_minute=settings.prompt_tokens_per_minute),
        )
        sink, caller = MemorySink(), Caller(tenant, Key("", JUDGE, ""))
        await ask(_SCORING, MemoryDoor(text.encode(), {}, caller), sink)
        if sink.error is not None:
            raise sink.error
        if sink.headers.get(_ANSWERED) != settings.model.encode():
            return [[] for _ in prompts]
        return [choice.prompt_logprobs for choice in sink.choices]


def _is_text(body: TextBody) -> bool:
    if isinstance(body, ChatBody):
        return not body.has_other_parts
    return isinstance(body, CompletionBody) and isinstance(body.prompts()[0], str)


def _size(body: TextBody) -> int:
    """Characters, or so."""
    if isinstance(body, ChatBody):
        return body.conversation().content_size()
    return sum(len(prompt) for prompt in body.prompts()) if isinstance(body, CompletionBody) else 0


def _mean(scored: Sequence[wire.Scored]) -> float | None:
    """The mean log-probability of the tokens that have one."""
    known = [each.logprob for each in scored if each.logprob is not None]
    return sum(known) / len(known) if known else None
