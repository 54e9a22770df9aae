"""Speculative decoding of one model: which draft, how many tokens, up to which batch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from weir.settings.section import Section


class SpeculativeSettings(Section):
    """A small model of the same tokenizer proposes tokens that the large one checks in one step.

    Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding"
    (2023). ``draft``: as a model's ``source``; None: off. ``tokens``: proposed per step.
    ``max_batch``: with more running sequences than this nothing is proposed, since a full batch
    has no idle arithmetic to spend.
    """

    draft: str | None = None
    tokens: int = Field(3, ge=1, le=16)
    max_batch: int = Field(4, ge=1)

    def engine_argument(self, draft_path: str) -> dict[str, Any]:
        """vLLM's ``speculative_config``: with a schedule of tokens by batch size."""
        schedule = [(1, self.max_batch, self.tokens), (self.max_batch + 1, 1_000_000, 0)]
        return {
            "method": "draft_model",
            "model": draft_path,
            "num_speculative_tokens": self.tokens,
            "num_speculative_tokens_per_batch_size": schedule,
        }
