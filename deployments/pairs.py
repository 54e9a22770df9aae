"""Which of vLLM's models score pairs of texts, as the gateway joins them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: What a replica says that it can do, beside vLLM's own names of tasks.
SCORE = "score"


def scores_pairs(config: Any, tasks: Iterable[str]) -> bool:
    """Whether a model is a cross-encoder with one score a pair, of texts that its tokenizer joins.

    Not so are models that score a prompt of a template of their own, as language models made into
    rerankers do: what the gateway would send them is not what they were trained on.

    Args:
        config: vLLM's model config.
        tasks: what vLLM says that the engine can do.
    """
    if config.get_pooling_task(tuple(tasks)) != "classify":
        return False
    if getattr(config.hf_config, "num_labels", 0) != 1 or not config.use_sep_token:
        return False
    from vllm.model_executor.model_loader import get_model_cls
    from vllm.model_executor.models.interfaces import supports_score_template

    return not supports_score_template(get_model_cls(config))
