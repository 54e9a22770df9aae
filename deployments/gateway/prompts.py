"""Chat template and tokenizer in the gateway: a prompt becomes token ids once, here.

The ids are what the prefix index hashes and what the replica is given. They equal those that vLLM
would make of the same request: ``tests/deployments/test_rendering.py`` compares them with its
renderer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jinja2
from tokenizers import Tokenizer

from deployments.gateway.chat_templates import ChatTemplate, Message
from deployments.gateway.content_marks import ContentMarks
from deployments.gateway.control_tokens import ControlTokens, without_marks
from deployments.gateway.conversation import Conversation, parse_arguments, shape_messages
from deployments.gateway.token_bounds import most_bytes_per_token
from weir.errors import BadRequestError, ConfigError, ContextLengthError

_DECIDING_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
#: A conversation with so many times the text that its context can hold is not rendered at all.
_UNSEEN_FACTOR = 4
_NO_WIDTH = "\u200b"
#: What a chat template is shown besides the messages, by its name in a body.
_SHOWN = ("tools", "documents", "chat_template_kwargs")
_NAMED_TOKENS = tuple(
    f"{kind}_token" for kind in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)


class PromptEncoder:
    """Renders and tokenizes for one model. ``folder`` holds the model's tokenizer files.
    ``special_tokens``: what the text of a control token in a conversation is, ``text`` or, as with
    vLLM, the token (``models[].prompts.special_tokens``).

    Its methods change nothing and may be called in several threads at once.
    """

    def __init__(self, folder: Path, special_tokens: Literal["text", "vllm"] = "text") -> None:
        file = _required(folder / "tokenizer.json")
        self._tokenizer = Tokenizer.from_file(str(file))
        self.folder = folder
        self.fingerprint = f"{_fingerprint(folder)}-{special_tokens}"
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        config = json.loads(_required(folder / "tokenizer_config.json").read_text("utf-8"))
        self._special = _special_tokens(folder, config)
        self.truncation_side = "left" if config.get("truncation_side") == "left" else "right"
        description = json.loads(file.read_text("utf-8"))
        self._most_bytes_per_token = most_bytes_per_token(description)
        sources = _chat_templates(folder, config)
        try:
            self._templates = {name: ChatTemplate(source) for name, source in sources.items()}
        except jinja2.TemplateError as error:
            raise ConfigError(f"models[].source: {folder}: chat template: {error}") from error
        self._control: ControlTokens | None = None
        self._marks: dict[str, ContentMarks] = {}
        if special_tokens == "text" and sources:
            named = [text for kind, text in self._special.items() if kind != "unk_token"]
            self._control = ControlTokens(self._tokenizer, description, sources.values(), named)
            self._marks = {
                name: ContentMarks(self._control, template)
                for name, template in self._templates.items()
            }

    def encode_chat(self, conversation: Conversation, at_most: int | None = None) -> list[int]:
        """Token ids of a conversation. ``at_most``: tokens that the model's context holds.

        Raises:
            BadRequestError: the model's chat template refuses the conversation, or it has none.
            ContextLengthError: the rendered text is too long for ``at_most`` tokens for certain.
        """
        printed, control = self._print(conversation)
        special = conversation.add_special_tokens
        if control is None:
            return self._ids(printed, special, at_most, "messages")
        escaped = self._template(conversation).escapes
        self._check_length(without_marks(printed, escaped), at_most, "messages")
        with _valid_unicode("messages"):
            return control.encode(printed, special=special, escaped=escaped)

    def check_unseen(self, conversation: Conversation, at_most: int) -> None:
        """Refuse a conversation that is far too long, before it is rendered. A template may leave
        out some of it (blanks, reasoning), so that little more is certain.

        Raises:
            ContextLengthError: so it is.
        """
        size, most = conversation.content_size(), self._most_bytes_per_token
        if most is not None and size > _UNSEEN_FACTOR * most * at_most:
            raise ContextLengthError(
                f"The messages have {size} characters; the model's context holds {at_most} tokens.",
                param="messages",
            )

    def render_chat(self, conversation: Conversation) -> str:
        """The text of a conversation, as the model's chat template prints it.

        Raises:
            BadRequestError: the template refuses the conversation, or the model has none.
        """
        printed, control = self._print(conversation)
        escaped = self._template(conversation).escapes
        return printed if control is None else without_marks(printed, escaped)

    def break_up(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat body that the replica renders, whose renderer knows no text that is not a token:
        a space of no width stands in each control token that the client wrote.

        Raises:
            BadRequestError: something is nested too deeply.
        """
        tools = "tool_use" if body.get("tools") and "tool_use" in self._templates else "default"
        marks = self._marks.get(tools)
        if marks is None:
            return body
        messages = [_with_calls(message, parse_arguments) for message in body["messages"]]
        others = {name: body[name] for name in _SHOWN if name in body}
        if not marks.needed(messages, *others.values()):
            return body
        with _not_too_deep():
            broken = [marks.break_up(message, _NO_WIDTH) for message in messages]
            others = {k: marks.break_up_value(v, _NO_WIDTH) for k, v in others.items()}
        return {**body, **others, "messages": [_with_calls(m, json.dumps) for m in broken]}

    def encode_text(
        self, text: str, *, special: bool = True, at_most: int | None = None
    ) -> list[int]:
        """Token ids of a plain prompt; ``special``: with the tokenizer's own special tokens.

        Raises:
            BadRequestError: the text is not valid Unicode.
            ContextLengthError: it is too long for ``at_most`` tokens for certain.
        """
        return self._ids(text, special, at_most, "prompt")

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids, for the echo of a prompt that was given as ids."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    def fewest_tokens(self, text: str) -> int:
        """A lower bound of the text's number of tokens, at a small part of tokenizing's price.

        0 where nothing is known, as with tokenizers that have a token for unknown words.
        """
        most = self._most_bytes_per_token
        if most is None or len(text) < most:
            return 0
        return -(-len(text.encode("utf-8", "surrogatepass")) // most)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Each token as the vocabulary spells it, which need not be text."""
        return [str(self._tokenizer.id_to_token(token)) for token in ids]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer itself; nobody changes it."""
        return self._tokenizer

    @property
    def vocabulary_size(self) -> int:
        """Token ids are below this."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def _print(self, conversation: Conversation) -> tuple[str, ControlTokens | None]:
        """What the template prints, and what encodes it where there are marks in it."""
        template = self._template(conversation)
        messages: list[Message] = shape_messages(conversation, template)
        given = {k: v for k, v in conversation.arguments.items() if k in template.variables}
        tools, documents = conversation.tools or None, conversation.documents
        marks = self._marks.get(self._template_name(conversation))
        control = None
        shown = tools if "tools" in template.variables else None  # a long list, often not read
        if marks is not None and marks.needed(messages, shown, documents, given):
            control = self._control
            with _not_too_deep():
                messages = marks.mark_messages(messages)
                tools, documents, given = (marks.mark(each) for each in (tools, documents, given))
        printed = template.render(
            messages,
            tools=tools,
            documents=documents,
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            arguments={**self._special, **given},
        )
        return printed, control

    def _template_name(self, conversation: Conversation) -> str:
        return "tool_use" if conversation.tools and "tool_use" in self._templates else "default"

    def _template(self, conversation: Conversation) -> ChatTemplate:
        try:
            return self._templates[self._template_name(conversation)]
        except KeyError:
            raise BadRequestError(
                "This model has no chat template; use /v1/completions.", param="messages"
            ) from None

    def _check_length(self, text: str, at_most: int | None, param: str) -> None:
        if at_most is not None and (fewest := self.fewest_tokens(text)) > at_most:
            raise ContextLengthError(
                f"The prompt has at least {fewest} tokens; the model's context holds {at_most}.",
                param=param,
            )

    def _ids(self, text: str, special: bool, at_most: int | None, param: str) -> list[int]:
        self._check_length(text, at_most, param)
        with _valid_unicode(param):
            # A batch of one: unlike ``encode`` it releases the interpreter's lock, and unlike
            # ``encode_batch`` it keeps no offsets, which nobody reads (2 to 5 times as fast).
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=special)
        ids: list[int] = encoding.ids
        return ids


@contextmanager
def _valid_unicode(param: str) -> Iterator[None]:
    try:
        yield
    except (TypeError, UnicodeEncodeError):
        # Half of a surrogate pair, which JSON can spell and UTF-8 cannot.
        raise BadRequestError(f"{param}: not valid Unicode.", param=param) from None


@contextmanager
def _not_too_deep() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise BadRequestError("messages: nested too deeply.", param="messages") from None


def _with_calls(message: dict[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """The message with other arguments of its tool calls."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = call["function"]
        arguments = change(function.get("arguments"))
        calls.append({**call, "function": {**function, "arguments": arguments}})
    return {**message, "tool_calls": calls} if calls else message


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
    for name in _DECIDING_FILES:
        file = folder / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()


def _required(file: Path) -> Path:
    if not file.is_file():
        raise ConfigError(f"models[].source: {file.parent} has no {file.name}")
    return file


def _chat_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Template sources by name: ``default``, and ``tool_use`` where the model has another one."""
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {each["name"]: each["template"] for each in template}
    else:
        named = {"default": template} if isinstance(template, str) else {}
    file = folder / "chat_template.jinja"
    if file.is_file():
        named["default"] = file.read_text("utf-8")
    return {name: source for name, source in named.items() if name in ("default", "tool_use")}


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    file = folder / "special_tokens_map.json"
    given = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    given |= {name: config[name] for name in _NAMED_TOKENS if name in config}
    return {name: _token_text(given[name]) for name in _NAMED_TOKENS if given.get(name)}


def _token_text(token: Any) -> str:
    return str(token["content"]) if isinstance(token, dict) else str(token)
