"""What an attempt costs its tenant, and may cost at most."""

from __future__ import annotations

from collections.abc import Iterable

from deployments import wire
from deployments.gateway.accounts import Most
from deployments.gateway.adapters import Adapter
from deployments.gateway.legs import Attempt, Choice
from deployments.gateway.outputs import Counts
from deployments.gateway.request import Request
from weir.cost import Price, Used
from weir.settings import ModelSettings

_IMAGES = frozenset({"image_url", "input_image", "image"})


class PriceLists:
    """Of all models and their adapters, read once."""

    def __init__(self, models: Iterable[ModelSettings]) -> None:
        listed = tuple(models)
        self._models = {model.name: Price.of(model.price) for model in listed}
        self._adapters = {
            f"{model.name}:{adapter.name}": Price.of(adapter.price)
            for model in listed
            for adapter in model.adapters
            if adapter.price is not None
        }

    def of(self, model: str, adapter: Adapter | None = None) -> Price:
        """What the model costs, with the adapter that answers."""
        own = self._adapters.get(adapter.id) if adapter is not None else None
        return own or self._models[model]

    def nano_usd(self, request: Request, attempt: Attempt, used: Used) -> int:
        """What was used of an attempt at the request."""
        price = self.of(attempt.step.model, attempt.adapter)
        return price.nano_usd(used, request.priority_class, request.batch is not None)

    def most(
        self, request: Request, attempt: Attempt, context_tokens: int, may_spill: bool
    ) -> Most:
        """What an attempt at the request may use, all its choices together. ``context_tokens``:
        how long a prompt may be of which only its replica will know."""
        prompts = _prompts(attempt)
        prompt = sum(_length(choice, context_tokens) for choice in prompts)
        output = sum(
            choice.route.max_output_tokens
            for choice in attempt.choices
            if isinstance(choice.submit, wire.Submit)
        )
        used = Used(prompt, 0, output, _images(prompts), _embeds(attempt))
        price = self.of(attempt.step.model, attempt.adapter)
        batch = request.batch is not None
        most = price.most_nano_usd(used, request.priority_class, batch)
        return Most(attempt.step.model, used, most, may_spill)


def used_of(attempt: Attempt, counts: Counts) -> Used:
    """What is paid for of an attempt."""
    images = _images(_prompts(attempt)) if counts.prompt_tokens else 0
    prompt, cached, output = counts.prompt_tokens, counts.cached_tokens, counts.output_tokens
    return Used(prompt, cached, output, images, _embeds(attempt))


def images_in(submit: wire.Submit | wire.Embed) -> int:
    """How many images a prompt has."""
    if not isinstance(submit, wire.Submit) or not submit.messages:
        return 0
    contents = (message.get("content") for message in submit.messages.get("messages", ()))
    return sum(
        isinstance(part, dict) and part.get("type") in _IMAGES
        for content in contents
        if isinstance(content, list)
        for part in content
    )


def _prompts(attempt: Attempt) -> list[Choice]:
    """One choice for each prompt: choices of one prompt share it."""
    if len(attempt.choices) == 1:
        return attempt.choices
    return list({choice.prompt_number: choice for choice in attempt.choices}.values())


def _length(choice: Choice, context_tokens: int) -> int:
    submit = choice.submit
    if isinstance(submit, wire.Submit) and submit.messages is not None:
        return context_tokens
    return len(submit.prompt)


def _images(prompts: list[Choice]) -> int:
    return sum(images_in(choice.submit) for choice in prompts)


def _embeds(attempt: Attempt) -> bool:
    return bool(attempt.choices) and isinstance(attempt.choices[0].submit, wire.Embed)
