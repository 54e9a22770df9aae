"""How a model writes tool calls and reasoning, and how its output is read: vLLM's own parsers.

They decide on the grammar of the output and read it delta by delta, by the rules of vLLM's chat
server (``vllm/entrypoints/openai/chat_completion/serving.py``, its streaming half).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from copy import copy
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import aiohttp
from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import (
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionRequest,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMClientError
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.sampling_params import StructuredOutputsParams
from vllm.tool_parsers.phi4mini_tool_parser import Phi4MiniJsonToolParser
from vllm.utils.mistral import is_mistral_tokenizer, is_mistral_tool_parser

from deployments import wire
from deployments.media import check_media
from deployments.schemas import check_chat
from deployments.token_texts import TokenTexts
from weir.errors import BadRequestError, UnsupportedError

_READ = frozenset(
    {
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "structured_outputs",
        "include_reasoning",
        "reasoning_effort",
        "chat_template_kwargs",
    }
)
#: What is known of requests' tools and forms: as they are encoded, and so much more for each. Read,
#: they take some times as much.
_KNOWN_BYTES, _EACH_BYTES = 2 * 1024 * 1024, 8 * 1024
_RENDERED = _READ | {
    "messages",
    "add_generation_prompt",
    "continue_final_message",
    "add_special_tokens",
    "documents",
    "media_io_kwargs",
    "mm_processor_kwargs",
}


@dataclass(slots=True)
class Piece:
    """What one output means: content, reasoning and parts of tool calls."""

    text: str = ""
    reasoning: str = ""
    calls: list[wire.CallDelta] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.text or self.reasoning or self.calls)

    def join(self, following: Piece) -> None:
        """Append what follows; parts of one tool call become one."""
        self.text += following.text
        self.reasoning += following.reasoning
        for call in following.calls:
            last = self.calls[-1] if self.calls else None
            if last is not None and last.index == call.index:
                last.arguments += call.arguments
                last.id, last.name = last.id or call.id, last.name or call.name
            else:
                self.calls.append(call)


@dataclass(slots=True)
class Asked:
    """What a chat's fields ask for, as vLLM's own server reads them. Streams that ask for the same
    share it: nothing changes it once the first one has its reader. ``parsed``: outputs are read by
    the model's parser, if it has one."""

    request: ChatCompletionRequest
    template_kwargs: dict[str, Any]
    parsed: bool = True


_Key = tuple[str, bool, bool]


class _Known:
    """The last few. An agent sends the same tools with each of its turns, and reading them takes
    longer than anything else that a replica's front end does for a request."""

    def __init__(self) -> None:
        self._asked: OrderedDict[_Key, Asked] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # long lists are read in threads

    def get(self, key: _Key) -> Asked | None:
        with self._lock:
            asked = self._asked.get(key)
            if asked is not None:
                self._asked.move_to_end(key)
            return asked

    def keep(self, key: _Key, asked: Asked) -> None:
        with self._lock:
            if key not in self._asked:
                self._bytes += _cost(key)
            self._asked[key] = asked
            while self._bytes > _KNOWN_BYTES:
                self._bytes -= _cost(self._asked.popitem(last=False)[0])


def _cost(key: _Key) -> int:
    return len(key[0]) + _EACH_BYTES


class ChatFormat:
    """Of one model. ``tool_parser`` and ``reasoning_parser`` are vLLM's names; None: the model
    writes no tool calls (no reasoning) that could be told from its text."""

    def __init__(
        self,
        client: Any,
        *,
        tool_parser: str | None = None,
        reasoning_parser: str | None = None,
        chat_template: str | None = None,
        content_format: Any = "auto",
        template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.config = client.model_config
        self.tokenizer = client.renderer.tokenizer
        self._renderer = OnlineRenderer(
            client.model_config,
            client.renderer,
            request_logger=None,
            chat_template=chat_template,
            chat_template_content_format=content_format,
            enable_auto_tools=tool_parser is not None,
            tool_parser=tool_parser,
            reasoning_parser=reasoning_parser or None,
            default_chat_template_kwargs=template_kwargs,
        )
        self.parser: Any = self._renderer.parser
        self._known = _Known()

    def read(
        self, chat: dict[str, Any], skip_special_tokens: bool, unparsed: bool = False
    ) -> ChatReader:
        """A reader for the output of a request whose prompt is rendered. ``unparsed``: it takes the
        grammar from ``chat`` and leaves the text as it is.

        Raises:
            BadRequestError: the fields are not what vLLM's model of a chat body allows, ask for a
                grammar that is too large, or for tools that the model cannot call.
        """
        given = {name: value for name, value in chat.items() if name in _READ}
        key = (json.dumps(given), skip_special_tokens, unparsed)  # numbers may be of any size
        asked = self._known.get(key)
        if asked is not None:
            return self._reader(asked)
        body = given | {"messages": [], "skip_special_tokens": skip_special_tokens}
        request = self._request(body)
        asked = Asked(request, {} if unparsed else self._template_kwargs(request), not unparsed)
        reader = self._reader(asked)
        if reader.parser is not None and self._adjusts(request):
            asked.request = reader.parser.adjust_request(request=request)
        self._known.keep(key, asked)
        return reader

    async def render(
        self, body: dict[str, Any], skip_special_tokens: bool
    ) -> tuple[Any, ChatReader]:
        """vLLM's engine input for a chat body whose prompt is not text, and the output's reader.

        Raises:
            BadRequestError: as in :meth:`read`; or the model cannot take such a prompt.
        """
        if not self.config.is_multimodal_model:
            raise UnsupportedError(
                "This model reads text only; the request's messages have parts of another kind.",
                param="messages",
            )
        check_media(body.get("messages") or (), self.config.allowed_media_domains)
        given = {name: value for name, value in body.items() if name in _RENDERED}
        request = self._request(given | {"skip_special_tokens": skip_special_tokens})
        try:
            rendered = await self._renderer.render_chat(request)
        except (ValueError, VLLMClientError, aiohttp.ClientError) as error:
            raise BadRequestError(f"The messages cannot be read: {error}") from error
        if isinstance(rendered, ErrorResponse):
            raise BadRequestError(rendered.error.message)
        (prompt,) = rendered[1]
        return prompt, self._reader(Asked(request, self._template_kwargs(request)))

    def _request(self, body: dict[str, Any]) -> ChatCompletionRequest:
        check_chat(body)
        try:
            request = ChatCompletionRequest(**body, stream=True)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadRequestError(f"{where}: {first['msg']}".removeprefix(": ")) from error
        except (VLLMClientError, ValueError, TypeError, KeyError) as error:
            raise BadRequestError(str(error)) from error
        if request.tools and request.tool_choice not in (None, "none") and not self._calls_tools():
            raise UnsupportedError(
                "This model cannot call tools: leave out tools, or set tool_choice to none.",
                param="tools",
            )
        return request

    def _calls_tools(self) -> bool:
        config = self.config.hf_config
        named = self.parser is not None and self.parser.tool_parser_cls is not None
        return named or config.model_type == "gpt_oss" or is_mistral_tokenizer(self.tokenizer)

    def _adjusts(self, request: ChatCompletionRequest) -> bool:
        tool_parser = self.parser.tool_parser_cls
        mistral = (
            tool_parser is not None
            and is_mistral_tool_parser(tool_parser)
            and is_mistral_tokenizer(self.tokenizer)
            and self.tokenizer.supports_grammar
        )
        reasons = self.parser.reasoning_parser_cls is not None
        return reasons or request.tool_choice != "none" or mistral

    def _template_kwargs(self, request: ChatCompletionRequest) -> dict[str, Any]:
        renderer = self._renderer
        params = request.build_chat_params(
            renderer.chat_template, renderer.chat_template_content_format
        )
        kwargs: dict[str, Any] = params.with_defaults(
            renderer.default_chat_template_kwargs
        ).chat_template_kwargs
        return kwargs

    def _reader(self, asked: Asked) -> ChatReader:
        parser = None
        if self.parser is not None and asked.parsed:
            parser = self.parser(
                self.tokenizer,
                asked.request.tools,
                chat_template_kwargs=asked.template_kwargs,
                model_config=self.config,
            )
        return ChatReader(asked, parser)


class ChatReader:
    """Reads the output of one stream. ``parser``: vLLM's, of this stream alone."""

    def __init__(self, asked: Asked, parser: Any | None) -> None:
        self._asked = asked
        self.parser = parser
        self._called = False
        self._texts: TokenTexts | None = None
        self._whole: str | None = "" if _reads_whole_answers(asked.request, parser) else None

    @property
    def structured_outputs(self) -> StructuredOutputsParams | None:
        """The grammar that the output has to follow."""
        # A copy: vLLM writes into it, and the request may be that of other streams too.
        grammar = self._asked.request.extract_structured_outputs()
        return copy(grammar) if grammar is not None else None

    @property
    def skip_special_tokens(self) -> bool:
        """A parser may need to see them."""
        return bool(self._asked.request.skip_special_tokens)

    @property
    def hides_tokens(self) -> bool:
        """Whether log-probabilities would tell what is not to be told: the reasoning."""
        return self.parser is not None and not self._asked.request.include_reasoning

    def reasoning(self, prompt: list[int]) -> tuple[bool | None, dict[str, Any] | None]:
        """What the engine is told, so that the grammar begins where the reasoning ends: whether it
        has ended in the prompt, and the arguments of the engine's own reasoning parser."""
        parser = self.parser
        reasons = parser is not None and parser.reasoning_parser is not None
        kwargs = {"chat_template_kwargs": self._asked.template_kwargs} if reasons else None
        if not self._asked.request.include_reasoning or self._asked.request._grammar_from_parser:
            return True, kwargs
        ended = parser.is_reasoning_end(prompt) if parser is not None and reasons else None
        return ended, kwargs

    def resume(self, resume: wire.Resume) -> None:
        """Know that calls have been announced already."""
        self._called = self._called or bool(resume.calls)

    def begin(self, texts: TokenTexts) -> None:
        """Have ``texts`` cut outputs of several tokens, before the first one is taken."""
        self._texts = texts

    def take(self, text: str, tokens: list[int], prompt: list[int], finished: bool) -> Piece:
        """Read the next output. ``prompt`` is the prompt's ids."""
        if self.parser is None:
            return Piece(text)
        if self._whole is not None:
            self._whole += text
            return self._take_whole(self._whole) if finished else Piece()
        parts = self._texts.split(text, tokens, finished) if self._texts else [(text, tokens)]
        if len(parts) == 1:
            return self._take(*parts[0], prompt, finished)
        piece = Piece()
        for number, (text, tokens) in enumerate(parts, 1):
            piece.join(self._take(text, tokens, prompt, finished and number == len(parts)))
        return piece

    def _take(self, text: str, tokens: list[int], prompt: list[int], finished: bool) -> Piece:
        assert self.parser is not None
        delta = self.parser.parse_delta(
            delta_text=text,
            delta_token_ids=tokens,
            request=self._asked.request,
            prompt_token_ids=prompt,
            finished=finished,
        )
        if delta is None:
            return Piece()
        calls = [_call(call) for call in delta.tool_calls or ()]
        return Piece(delta.content or "", delta.reasoning or "", self._wanted(calls))

    def _take_whole(self, text: str) -> Piece:
        assert self.parser is not None
        found = self.parser.tool_parser.extract_tool_calls(text, self._asked.request)
        calls = [
            wire.CallDelta(index, call.function.arguments, call.id, call.function.name)
            for index, call in enumerate(found.tool_calls)
        ]
        return Piece(found.content or "", calls=self._wanted(calls))

    def _wanted(self, calls: list[wire.CallDelta]) -> list[wire.CallDelta]:
        self._called = self._called or bool(calls)
        if self._asked.request.parallel_tool_calls is False:
            return [call for call in calls if call.index == 0]
        return calls

    def finish_reason(self, reason: str) -> str:
        """OpenAI's: tool_calls where tools were called, unless the request named the one."""
        named = isinstance(self._asked.request.tool_choice, ChatCompletionNamedToolChoiceParam)
        return "tool_calls" if self._called and not named else reason


def _reads_whole_answers(request: ChatCompletionRequest, parser: Any | None) -> bool:
    """Whether the request's tool calls can be found at the end of the answer only: delta by delta,
    these parsers find nothing, and the text would be lost."""
    chooses = request.tools and request.tool_choice in (None, "auto")
    return bool(chooses) and isinstance(
        getattr(parser, "tool_parser", None), Phi4MiniJsonToolParser
    )


def _call(delta: Any) -> wire.CallDelta:
    function = delta.function
    name = (function.name or "") if function else ""
    arguments = (function.arguments or "") if function else ""
    return wire.CallDelta(delta.index, arguments, delta.id or "", name)
