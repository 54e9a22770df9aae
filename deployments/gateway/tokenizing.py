"""From a request to what is to be generated: prompts as token ids, and choices."""

from __future__ import annotations

import msgspec

from deployments import wire
from deployments.gateway.adapters import Adapter
from deployments.gateway.bodies import ChatBody
from deployments.gateway.legs import Choice
from deployments.gateway.media_options import check_media_options
from deployments.gateway.model import Model
from deployments.gateway.prefixes import salt_of
from deployments.gateway.request import Request
from fallback.policies import RequestFacts
from router.types import RouteRequest
from weir.errors import UnsupportedError

#: Tokens that a prompt which is not text is taken for until its replica has rendered it.
UNKNOWN_PROMPT_TOKENS = 1024
#: So many tokens are hashed in half a millisecond.
HASHED_INLINE_BELOW = 8192


class Prompts:
    """A request's prompts as token ids, made once for all models with the same tokenizer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.choices = request.dialect.choices(request.body)
        self._made: dict[str, list[list[int]]] = {}

    async def of(self, model: Model) -> list[list[int]]:
        """Each prompt's token ids.

        Raises:
            BadRequestError: the model cannot take such a prompt.
        """
        key = model.encoder.fingerprint
        if key not in self._made:
            request = self.request
            encoding = model.encoding(request.tenant.id, request.body_bytes)
            self._made[key] = await request.dialect.prompts(request.body, encoding)
        return self._made[key]

    async def keys_of(
        self, model: Model, prompts: list[list[int]], adapter: str | None = None
    ) -> list[tuple[int, ...]]:
        """Each prompt's KV block keys, as that model's replicas make them. ``adapter``: the key
        of the one that is to compute them."""
        hasher, salt, context = model.hasher, _salt(self.request), model.max_model_len
        fitting = [prompt if len(prompt) < context else [] for prompt in prompts]
        if sum(map(len, fitting)) < HASHED_INLINE_BELOW:
            return [hasher.keys(prompt, salt, adapter) for prompt in fitting]
        tenant, size = self.request.tenant.id, self.request.body_bytes
        return await model.off_loop.run(
            tenant, size, lambda: [hasher.keys(prompt, salt, adapter) for prompt in fitting]
        )


def choices_of(
    request: Request,
    model: Model,
    prompts: list[list[int]],
    keys: list[tuple[int, ...]],
    facts: RequestFacts | None,
    adapter: Adapter | None = None,
    most_output_tokens: int | None = None,
) -> list[Choice]:
    """What is to be generated. ``keys``: each prompt's KV block keys. ``facts``: for the spill
    rule, where the request may spill: the first choice is asked, and the others follow it.
    ``most_output_tokens``: of all choices together, where the client does not say.

    Raises:
        WeirError: the model has no replica, or a prompt does not fit.
    """
    dialect, body = request.dialect, request.body
    if not dialect.choices(body):
        return []
    if isinstance(body, ChatBody) and (options := body.media_options):
        check_media_options(options, model.settings.prompts.media_options)
    choices: list[Choice] = []
    key = adapter.key if adapter is not None else None
    salt, each = _salt(request), dialect.choices(body) // len(prompts)
    for number, prompt in enumerate(prompts):
        size = len(prompt) or min(UNKNOWN_PROMPT_TOKENS, model.context // 2)
        asked, field = dialect.output_limit(body), dialect.limit_field(body)
        # How long a prompt is that its replica renders, only that knows: it caps the output.
        known = len(prompt) if prompt else 1
        limit = model.output_limit(
            known, asked, dialect.prompt_field, field, request.priority_class
        )
        if asked is None and most_output_tokens is not None:
            limit = max(1, min(limit, most_output_tokens // dialect.choices(body)))
        submit = dialect.submission(body, prompt, limit, model.reasons)
        if adapter is not None:
            submit = _adapted(submit, adapter)
        if isinstance(submit, wire.Submit) and submit.messages is not None:
            messages = model.encoder.break_up(submit.messages)
            submit = msgspec.structs.replace(submit, messages=messages)
        for _ in range(each):
            index = len(choices)
            suffix = f"-{index}" if len(prompts) * each > 1 else ""
            route = RouteRequest(
                request_id=request.serial + suffix,
                model=model.name,
                tenant=request.tenant.id,
                prompt_tokens=size,
                max_output_tokens=limit,
                expected_output_tokens=0,  # the dispatcher has learned it,
                priority_class=request.priority_class,
                block_hashes=keys[number],
                arrival_s=request.arrival_s,
                deadline_s=request.deadline_s,
                facts=facts if index == 0 else None,
                adapter=key,
            )
            own = msgspec.structs.replace(submit, request_id=request.id + suffix, cache_salt=salt)
            choices.append(Choice(index, number, route, own))
    return choices


def _salt(request: Request) -> str:
    """Bodies of other kinds than text have no salt of their own."""
    return salt_of(request.tenant, getattr(request.body, "cache_salt", None))


def _adapted(submit: wire.Submit | wire.Embed, adapter: Adapter) -> wire.Submit:
    if isinstance(submit, wire.Embed):
        raise UnsupportedError(
            f"The adapter {adapter.id!r} generates text; it embeds and scores none.", param="model"
        )
    told = wire.Adapter(adapter.key, adapter.source, adapter.cold == "wait")
    return msgspec.structs.replace(submit, adapter=told)
