"""The bodies that clients send, checked."""

from __future__ import annotations

from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody

TextBody = ChatBody | CompletionBody
Body = ChatBody | CompletionBody | EmbeddingBody

__all__ = ["Body", "ChatBody", "CompletionBody", "EmbeddingBody", "TextBody"]
