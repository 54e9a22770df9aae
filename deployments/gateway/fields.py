"""The table of all fields that request bodies may have: ``python -m deployments.gateway.fields``
prints it, from the models that read the bodies. It is ``docs/fields.md``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel

from deployments.gateway.bodies.anthropic import CountTokensBody, MessagesBody
from deployments.gateway.bodies.generating import SamplingFields
from deployments.gateway.bodies.known_fields import MEDIA_OPTIONS
from deployments.gateway.bodies.messages import ChatMessage
from deployments.gateway.bodies.parsing import Body
from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody
from deployments.gateway.bodies.responses import ResponsesBody

Fate = Literal["used", "passed to the engine", "a hint without effect", "refused"]
#: The bodies by path.
BODIES: dict[str, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": CompletionBody,
    "/v1/responses": ResponsesBody,
    "/v1/embeddings": EmbeddingBody,
    "/v1/messages": MessagesBody,
    "/v1/messages/count_tokens": CountTokensBody,
}
#: Fields beside those for sampling that decide on what the engine is asked for.
_ENGINE = frozenset(SamplingFields.model_fields) | {
    *("logprobs", "top_logprobs", "prompt_logprobs", "max_tokens", "max_completion_tokens"),
    *("response_format", "structured_outputs", "tools", "tool_choice", "parallel_tool_calls"),
    *("include_reasoning", "reasoning_effort", "dimensions", "max_output_tokens", "text"),
    *("reasoning", "stop_sequences", "thinking", "output_config", "output_format"),
    *MEDIA_OPTIONS,
}
_HEAD = """# Fields of request bodies

Generated from the models that read them: `python -m deployments.gateway.fields > docs/fields.md`.

- **used**: the gateway acts on it. **passed to the engine**: it decides on what the engine does.
- **a hint without effect**: accepted, changes nothing, and is not named in `x-weir-ignored`.
- **refused**: a 400 that names the field, because the answer would not be what was asked for.

`null` is the same as absent, in nested objects too. Whole numbers may be written with a point \
(`8.0`) or in quotes (`"8"`), as vLLM's servers take them. Token ids in prompts and in \
`allowed_token_ids` may not, and counts of log-probabilities not in quotes.

A field that is in no table is ignored and named in the answer's header `x-weir-ignored` (at most \
16 names), or a 400 with `server.unknown_fields: refuse`. With `refuse`, unknown fields of tools, \
of Anthropic's turns and blocks and of the items of Responses are ignored and named all the same: \
servers and frameworks leave notes of their own there. Further fields of a chat's tool calls and \
parts are shown to the model's template, which may read them.

`mm_processor_kwargs` and `media_io_kwargs` of a chat may have the keys that the operator names \
(`models[].prompts.media_options`), within the bounds that stand there; any other key is a 400 \
that names it. By default there is none.

`[]` stands for each element of a list.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What happens to one field. ``name``: its path in the body; ``reason``: of a refusal."""

    name: str
    fate: Fate
    reason: str = ""


def rows(model: type[Body]) -> list[Row]:
    """All fields of a body, those of nested objects included, in the order of their names."""
    found = {row.name: row for each in _models(model, set()) for row in _own_rows(each)}
    return [found[name] for name in sorted(found)]


def _own_rows(model: type[Body]) -> Iterator[Row]:
    before = f"{model.place}." if model.place else ""
    for name, field in model.model_fields.items():
        top = (field.alias or name) if not before else model.place.split("[")[0].split(".")[0]
        fate: Fate = "passed to the engine" if top in _ENGINE else "used"
        yield Row(before + (field.alias or name), fate)
    if model is ChatMessage:
        yield Row(before + "function_call", "used")
    for name in model.ignored:
        yield Row(before + name, "a hint without effect")
    for name, reason in model.refused.items():
        values = model.harmless.get(name)
        but = f" (accepted: null, {', '.join(map(_shown, values))})" if values else ""
        if name not in model.model_fields:
            yield Row(before + name, "refused", reason + but)


def _shown(value: Any) -> str:
    return f"`{value}`".replace("False", "false").replace("'", '"')


def _models(annotation: Any, seen: set[Any]) -> Iterator[type[Body]]:
    """The models that an annotation names, and those that their fields name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return
        seen.add(annotation)
        if issubclass(annotation, Body):
            yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)
            for more in field.metadata:
                yield from _models(more, seen)
    for inner in get_args(annotation):
        yield from _models(inner, seen)


def table() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    for path, model in BODIES.items():
        parts.append(f"\n## POST {path}\n\n| field | what happens |\n|---|---|\n")
        for row in rows(model):
            told = f"refused: {row.reason}" if row.fate == "refused" else row.fate
            parts.append(f"| `{row.name}` | {told} |\n")
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(table())
