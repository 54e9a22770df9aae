"""The kinds of request that clients speak: one file each, registered here."""

from __future__ import annotations

from deployments.gateway.dialects.base import Dialect, Registry, Writer
from deployments.gateway.dialects.chat import ChatDialect
from deployments.gateway.dialects.completions import CompletionDialect
from deployments.gateway.dialects.embeddings import EmbeddingDialect
from deployments.gateway.dialects.messages import CountTokensDialect, MessagesDialect
from deployments.gateway.dialects.ranking import RerankDialect, ScoreDialect
from deployments.gateway.dialects.responses import ResponsesDialect
from deployments.gateway.dialects.tokenizing import DetokenizeDialect, TokenizeDialect

DIALECTS = Registry()
DIALECTS.register(ChatDialect(), batchable=True)
DIALECTS.register(CompletionDialect(), batchable=True)
DIALECTS.register(EmbeddingDialect(), batchable=True)
DIALECTS.register(ResponsesDialect(), batchable=True)
DIALECTS.register(MessagesDialect(), batchable=True)
DIALECTS.register(CountTokensDialect())
DIALECTS.register(RerankDialect(), "/rerank", "/v2/rerank", batchable=True)
DIALECTS.register(ScoreDialect(), "/score", batchable=True)
DIALECTS.register(TokenizeDialect(), "/v1/tokenize")
DIALECTS.register(DetokenizeDialect(), "/v1/detokenize")

__all__ = ["DIALECTS", "Dialect", "Registry", "Writer"]
