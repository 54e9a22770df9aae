"""Fields of OpenAI's and vLLM's request bodies that no body of weir has: which of them are ignored,
and which are refused by name."""

from __future__ import annotations

from typing import Any

#: Hints that change nothing about the answer, and settings of services that weir is not.
HINTS = frozenset(
    {
        "service_tier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "verbosity",
        "prediction",
        "stream_interval",
        "session_id",
        "return_tokens_as_token_ids",
        "guided_decoding_backend",
    }
)
_OPERATORS = "the operator sets it"
#: Fields that would change the answer, with the reason for their refusal.
REFUSED: dict[str, str] = {
    "audio": "audio output is not supported",
    "modalities": "only text is supported",
    "web_search_options": "web search is not supported",
    "functions": "deprecated; send tools",
    "function_call": "deprecated; send tool_choice",
    "priority": _OPERATORS,
    "cache_salt": _OPERATORS,
    "request_id": "send the header x-request-id",
    "chat_template": _OPERATORS,
    "kv_transfer_params": _OPERATORS,
    "ec_transfer_params": _OPERATORS,
    "use_beam_search": "beam search is not supported",
    "length_penalty": "beam search is not supported",
    "early_stopping": "beam search is not supported",
    "spaces_between_special_tokens": "only true is supported",
    "prompt_embeds": "not supported",
    "allowed_token_ids": "not supported; use structured_outputs or logit_bias",
    "logprob_token_ids": "not supported; use top_logprobs",
    "thinking_token_budget": "not supported; use reasoning_effort",
    "repetition_detection": "not supported",
    "truncate_prompt_tokens": "not supported; shorten the prompt",
    "truncation_side": "not supported; shorten the prompt",
    "mm_processor_kwargs": _OPERATORS,
    "media_io_kwargs": _OPERATORS,
    "vllm_xargs": "not supported",
    "return_prompt_text": "not supported; use return_token_ids",
    "suffix": "not supported",
} | {
    f"guided_{kind}": "removed from vLLM; use structured_outputs"
    for kind in ("json", "regex", "choice", "grammar", "whitespace_pattern")
}
#: Values of those that ask for what happens anyway.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "functions": ([],),
    "use_beam_search": (False,),
    "length_penalty": (1,),
    "early_stopping": (False,),
    "spaces_between_special_tokens": (True,),
    "suffix": ("",),
    "return_prompt_text": (False,),
}
