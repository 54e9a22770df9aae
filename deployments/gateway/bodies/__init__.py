"""The bodies that clients send, checked."""

from __future__ import annotations

from deployments.gateway.bodies.looking import DetokenizeBody
from deployments.gateway.bodies.ranking import RerankBody, ScoreBody
from deployments.gateway.bodies.requests import ChatBody, CompletionBody, EmbeddingBody

TextBody = ChatBody | CompletionBody
Body = ChatBody | CompletionBody | EmbeddingBody | RerankBody | ScoreBody | DetokenizeBody

__all__ = ["Body", "ChatBody", "CompletionBody", "EmbeddingBody", "TextBody"]
