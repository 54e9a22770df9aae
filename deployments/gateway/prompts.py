"""Chat template and tokenizer in the gateway: a prompt becomes token ids once, here.

The ids are what the prefix index hashes and what the replica is given, so they must equal vLLM's
own: ``tests/e2e`` compares them with the replica's ``/tokenize``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from weir.errors import BadRequestError, ConfigError

Messages = Sequence[Mapping[str, Any]]


class PromptEncoder:
    """Renders and tokenizes for one model. ``folder`` holds the model's tokenizer files."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(_required(folder / "tokenizer.json")))
        self.folder = folder
        self.fingerprint = _fingerprint(folder)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = json.loads(_required(folder / "tokenizer_config.json").read_text("utf-8"))
        self._special = {
            name: _token_text(config[name])
            for name in ("bos_token", "eos_token", "unk_token", "pad_token")
            if config.get(name) is not None
        }
        source = _chat_template(folder, config)
        self._template = _environment().from_string(source) if source else None
        self._knows_developers = source is not None and "developer" in source
        self._takes_parts = source is not None and _loops_over_content(source)

    def encode_chat(
        self,
        messages: Messages,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Token ids of a conversation.

        Raises:
            BadRequestError: the model's chat template refuses the conversation, or it has none.
        """
        if self._template is None:
            raise BadRequestError(
                "This model has no chat template; use /v1/completions.", param="messages"
            )
        try:
            text = self._template.render(
                messages=[self._prepared(m) for m in messages],
                tools=tools or None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except jinja2.TemplateError as error:
            raise BadRequestError(
                f"messages: the model's chat template refused them: {error}", param="messages"
            ) from error
        return self._ids(text, special=False)

    async def encode_chat_within(self, body: Any, context: int) -> list[int]:
        messages = [m.model_dump(exclude_none=True) for m in body.messages]
        tools = [t.model_dump(exclude_none=True) for t in body.tools or ()]
        return self.encode_chat(messages, tools, body.add_generation_prompt)

    async def encode_prompt_within(
        self, prompt: str | list[int], context: int, field: str, special: bool
    ) -> list[int]:
        if isinstance(prompt, str):
            return self.encode_text(prompt)
        limit = self.vocabulary_size
        for position, token in enumerate(prompt):
            if token >= limit:
                raise BadRequestError(
                    f"{field}[{position}]: token id {token} is not below {limit}.",
                    param=f"{field}[{position}]",
                )
        return prompt

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)

    def _prepared(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        if message.get("role") == "developer" and not self._knows_developers:
            message = {**message, "role": "system"}
        return message if self._takes_parts else _plain(message)

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the tokenizer's own special tokens."""
        return self._ids(text, special=True)

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        # The fast kind leaves out where each token stands in the text, a quarter of the work. There
        # is none for a single text.
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids


def locate_tokenizer(source: str) -> Path:
    """The folder with a model's tokenizer files: a local one, or fetched by its hub id.

    Raises:
        ConfigError: it is neither.
    """
    local = Path(source)
    if local.is_dir():
        return local
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = ["tokenizer*", "*.jinja", "config.json", "special_tokens_map.json"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ConfigError(
            f"models[].source: {source!r} is no directory and could not be fetched: {error}"
        ) from error


def _fingerprint(folder: Path) -> str:
    """The same for two models exactly if their prompts have the same token ids."""
    digest = hashlib.sha256()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


def _required(file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"models[].source: {file.parent} has no {file.name}")
    return file


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones; OpenAI's endpoint uses "default"
        named = {t["name"]: t["template"] for t in template}
        return named.get("default")
    return template if isinstance(template, str) else None


def _token_text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)


def _loops_over_content(source: str) -> bool:
    """Whether a template takes a message's parts one by one (vLLM decides by the same sign)."""
    tree = _environment().parse(source)
    named = {
        assign.target.name
        for assign in tree.find_all(nodes.Assign)
        if isinstance(assign.target, nodes.Name) and _is_content(assign.node)
    }
    return any(
        _is_content(loop.iter) or (isinstance(loop.iter, nodes.Name) and loop.iter.name in named)
        for loop in tree.find_all(nodes.For)
    )


def _is_content(node: nodes.Node) -> bool:
    """``x.content``, ``x['content']`` or ``x.get('content')``."""
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Const) and node.arg.value == "content"
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr) and node.args:
        first = node.args[0]
        is_get = node.node.attr == "get"
        return is_get and isinstance(first, nodes.Const) and first.value == "content"
    return False


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    # Such templates want text; vLLM joins text parts with a newline for them.
    content = message.get("content")
    if isinstance(content, list):
        text = "\n".join(part["text"] for part in content if part.get("type") == "text")
        return {**message, "content": text}
    return dict(message)


class _GenerationTag(Extension):
    """``{% generation %}`` marks the assistant's text for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own interface

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    # The settings that chat templates on the hub are written for.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)
