"""Every body that the gateway answers."""

from __future__ import annotations

from deployments.gateway.requests import ChatBody, CompletionBody, EmbeddingBody

TextBody = ChatBody | CompletionBody
Body = ChatBody | CompletionBody | EmbeddingBody
