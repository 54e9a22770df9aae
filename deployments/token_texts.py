"""Cuts an output of several tokens into outputs of one.

vLLM's parsers are written for one token at a time: given two, some keep a marker in the text or
lose what stands beside it (tests/deployments/test_token_texts.py has them by name). An engine puts
out several where it guesses tokens ahead, where it was faster than whoever listens, and with
``stream_interval``. With stop strings, text comes later than its tokens, which confuses the same
parsers; so there a token is handed on when its text is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from vllm.sampling_params import SamplingParams
from vllm.v1.engine.detokenizer import IncrementalDetokenizer

#: So many tokens before the first one decide how its text begins.
_CONTEXT_TOKENS = 32

Part = tuple[str, list[int]]


class TokenTexts:
    """Of one stream. Tokens that come one by one, each with its text, cost nothing but their place
    in a list; the others are detokenized once more. What comes out has the same text and the same
    tokens as what went in, whatever the detokenizer makes of it."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int], params: SamplingParams) -> None:
        self._tokenizer = tokenizer
        self._params = params
        self._lags = bool(params.stop) and not params.include_stop_str_in_output
        self._before = deque(prompt[-_CONTEXT_TOKENS:], maxlen=_CONTEXT_TOKENS)
        self._unread: list[int] = []  # have had no text yet: parts of a character, for instance
        self._detokenizer: IncrementalDetokenizer | None = None
        self._waiting: deque[tuple[str, int]] = deque()
        self._text = ""  # has come, and is no whole token's yet

    def split(self, text: str, tokens: list[int], finished: bool) -> list[Part]:
        """The same in parts of one token each; none while the next token's text is not there."""
        if self._detokenizer is None:
            if len(tokens) <= 1 and not self._lags:
                self._unread += tokens
                if text:
                    self._before.extend(self._unread)
                    self._unread.clear()
                return [(text, tokens)]
            self._detokenizer = self._start()
        self._waiting.extend((self._next(token), token) for token in tokens)
        self._text += text
        return self._whole(finished)

    def _start(self) -> IncrementalDetokenizer:
        """As it is behind what was split without it."""
        plain = SamplingParams(
            skip_special_tokens=self._params.skip_special_tokens,
            spaces_between_special_tokens=self._params.spaces_between_special_tokens,
        )
        request = SimpleNamespace(
            request_id="",
            prompt_token_ids=list(self._before),
            prompt_embeds=None,
            sampling_params=plain,
        )
        started = IncrementalDetokenizer.from_new_request(self._tokenizer, request)
        self._before.clear()
        for token in self._unread:
            started.update([token], False)
            started.get_next_output_text(False, True)
        self._unread.clear()
        return started

    def _next(self, token: int) -> str:
        assert self._detokenizer is not None
        self._detokenizer.update([token], False)
        return str(self._detokenizer.get_next_output_text(False, True))

    def _whole(self, finished: bool) -> list[Part]:
        """The tokens whose text has come; at the end all of them, with what there is of it."""
        parts: list[Part] = []
        while self._waiting and self._text.startswith(self._waiting[0][0]):
            text, token = self._waiting.popleft()
            self._text = self._text[len(text) :]
            parts.append((text, [token]))
        if finished:
            for _, token in self._waiting:
                parts.append((self._text, [token]))
                self._text = ""
            self._waiting.clear()
        if self._text and not (self._waiting and self._waiting[0][0].startswith(self._text)):
            # The detokenizer reads these tokens otherwise than vLLM's, which counts.
            parts.append((self._text, [token for _, token in self._waiting]))
            self._waiting.clear()
            self._text = ""
        return parts or ([("", [])] if finished else [])
