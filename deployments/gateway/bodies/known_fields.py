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
        "prompt_cache_options",
        "safety_identifier",
        "verbosity",
        "prediction",
        "stream_interval",
        "session_id",
        "guided_decoding_backend",
        # Of beam search, and of vLLM's pages that only render.
        "length_penalty",
        "early_stopping",
        "return_token_offsets",
        "return_assistant_tokens_mask",
        "routed_experts_prompt_start",
    }
)
_OPERATORS = "the operator sets it"
#: Fields of a chat that may have the keys that the model's settings name.
MEDIA_OPTIONS = ("mm_processor_kwargs", "media_io_kwargs")
#: Fields that would change the answer, with the reason for their refusal.
REFUSED: dict[str, str] = {
    "audio": "audio output is not supported",
    "modalities": "only text is supported",
    "web_search_options": "web search is not supported",
    "moderation": "answers are not moderated here",
    "functions": "deprecated; send tools",
    "function_call": "deprecated; send tool_choice",
    "priority": _OPERATORS,
    "cache_salt": _OPERATORS,
    "request_id": "send the header x-request-id",
    "chat_template": _OPERATORS,
    "kv_transfer_params": _OPERATORS,
    "ec_transfer_params": _OPERATORS,
    "use_beam_search": "beam search is not supported",
    "prompt_embeds": "not supported; send text or token ids",
    "logprob_token_ids": "not supported; use top_logprobs",
    "mm_processor_kwargs": "it decides how much memory an image takes; the operator sets it",
    "media_io_kwargs": "it decides how much memory a medium takes; the operator sets it",
    "vllm_xargs": "there is no extension of the engine that would read it",
    "return_prompt_text": "not supported; use return_token_ids, or POST /tokenize",
    "suffix": "not supported; put what follows into the prompt",
} | {
    f"guided_{kind}": "removed from vLLM; use structured_outputs"
    for kind in ("json", "regex", "choice", "grammar", "whitespace_pattern")
}
#: Values of those that ask for what happens anyway.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "functions": ([],),
    "use_beam_search": (False,),
    "suffix": ("",),
    "return_prompt_text": (False,),
}
