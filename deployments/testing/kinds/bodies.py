"""What bodies are made of."""

from __future__ import annotations

from typing import Any

from deployments.testing.kinds.kind import ANSWER_TOKENS

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]


def text_of(number: int) -> str:
    return f"w{number % 400} w{number // 400 % 400} w1 w2 w3"


def chat_body(number: int, **fields: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": text_of(number)}]
    return {"messages": said, "max_tokens": ANSWER_TOKENS, **fields}
