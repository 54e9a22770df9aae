"""How much of the prompts the KV cache can hold, by where the features go: computed.

The real chat template and tokenizer, blocks chained as the engine chains them, a cache that forgets
nothing; what a real engine with its small cache had is in the answers' rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.gateway.conversation import Conversation
from deployments.gateway.prompts import PromptEncoder
from features.enrichment import Placement, place
from features.enrichment.placement import join
from weir.samples.corpus import Example
from weir.samples.render import render_context, render_system_message

BLOCK_TOKENS = 32
TABLE = "KV blocks that prompts share, by placement (computed)"
PLACEMENTS: tuple[Placement, ...] = ("after_system", "last_user", "before_system")


def placement_rows(model: Path, asked: Sequence[Example]) -> list[dict[str, Any]]:
    """One row per placement: the share of prompt tokens in blocks that were seen before."""
    encoder = PromptEncoder(model)
    return [_row(encoder, placement, asked) for placement in PLACEMENTS]


def _row(encoder: PromptEncoder, placement: Placement, asked: Sequence[Example]) -> dict[str, Any]:
    seen: set[int] = set()
    total = hits = 0
    for example in asked:
        tokens = encoder.encode_chat(Conversation(_messages(example, placement)))
        total += len(tokens)
        chain, shared = 0, True
        for at in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
            chain = hash((chain, *tokens[at : at + BLOCK_TOKENS]))
            shared = shared and chain in seen
            hits += BLOCK_TOKENS * shared
            seen.add(chain)
    return {
        "system": placement,
        "requests": len(asked),
        "prompt_tokens": total,
        "block_tokens": BLOCK_TOKENS,
        "kv_cache_hit_share": hits / total,
        "table": TABLE,
    }


def _messages(example: Example, placement: Placement) -> list[dict[str, str]]:
    system = {"role": "system", "content": render_system_message(example.store, None)}
    talk = [{"role": m["role"], "content": m["content"]} for m in example.messages[1:]]
    messages = [system, *talk]
    text = render_context(example.customer)
    edit = place([message["role"] for message in messages], placement)
    if edit.kind == "insert":
        return [{"role": "system", "content": text}, *messages]
    message = messages[edit.index]
    message["content"] = join(edit.kind, message["content"], text)
    return messages
