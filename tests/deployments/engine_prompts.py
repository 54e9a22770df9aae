"""Prints, as JSON, the token ids that vLLM's own renderer makes of requests.

Run as a program in a process of its own, because importing vLLM warns and takes its time. Reads
``{"folders": {name: path}, "bodies": {name: body}, "texts": [...]}`` from standard input. An entry
of the answer is the list of ids, or the text of the error.
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

from transformers import AutoTokenizer
from vllm.entrypoints.chat_utils import parse_chat_messages
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers import merge_kwargs
from vllm.renderers.hf import resolve_chat_template_content_format, safe_apply_chat_template


def render(body: dict[str, Any], tokenizer: Any, config: Any) -> Any:
    """Follow ``OnlineRenderer.preprocess_chat`` and ``HfRenderer.render_messages``."""
    request = ChatCompletionRequest(model="m", **body)
    tools = [tool.model_dump() for tool in request.tools] if request.tools else None
    params = request.build_chat_params(None, "auto").with_defaults(
        merge_kwargs(None, {"tools": tools, "tokenize": False})
    )
    form = resolve_chat_template_content_format(
        None, params.chat_template_kwargs.get("tools"), "auto", tokenizer, model_config=config
    )
    conversation, _, _ = parse_chat_messages(request.messages, config, form)
    arguments = params.get_apply_chat_template_kwargs()
    text = safe_apply_chat_template(config, tokenizer, conversation, **arguments)
    return tokenizer.encode(text, add_special_tokens=request.add_special_tokens)


def main() -> None:
    asked = json.load(sys.stdin)
    answer: dict[str, Any] = {}
    for name, folder in asked["folders"].items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        config = SimpleNamespace(
            revision=None,
            code_revision=None,
            trust_remote_code=False,
            multimodal_config=None,
            enable_prompt_embeds=False,
            allowed_local_media_path="",
            allowed_media_domains=None,
            hf_config=SimpleNamespace(model_type="llama"),
        )
        ids: dict[str, Any] = {}
        for title, body in asked["bodies"].items():
            try:
                ids[title] = render(json.loads(json.dumps(body)), tokenizer, config)
            except (ValueError, TypeError) as error:
                ids[title] = f"{type(error).__name__}: {error}"
        texts = [tokenizer.encode(text) for text in asked["texts"]]
        answer[name] = {"chat": ids, "texts": texts}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
