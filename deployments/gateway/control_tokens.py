"""Control tokens: the tokens of a model that only its chat template may write.

A chat template prints markers (``<|im_start|>``, ``[INST]``, ``<think>``) around what a client
sent, and the tokenizer makes one token of each, wherever it stands. A client could write them too
and so begin a turn that nobody said. Therefore, where a conversation has the text of such a token,
it is printed with marks in it (:mod:`deployments.gateway.content_marks`), and what is printed is
encoded here: by a tokenizer that knows each control token by another name only, which this module
gives to those that the template wrote. To that tokenizer the client's text is text like any other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import Any

from tokenizers import AddedToken, Tokenizer

from weir.errors import BadRequestError, ConfigError

#: Stands inside what a client wrote, where a control token would begin. A code point that Unicode
#: assigns to no character; where a client sends it, it is doubled and so kept.
MARK = "\ufdd0"
_MARKS = re.compile(f"{MARK}({MARK}?)")
_ESCAPED = MARK.encode("ascii", "backslashreplace").decode()
_ESCAPED_MARKS = re.compile(f"(?:{re.escape(_ESCAPED)})((?:{re.escape(_ESCAPED)})?)")
#: Around the number of a control token, the name that the second tokenizer knows it by.
_NAME = "\ufdd1"
_BARS = ("|", "\uff5c")


class ControlTokens:
    """Of one model. ``texts``: how they are written. ``markup``: those of them that a model writes
    inside its own turns (``<think>``, ``<tool_call>``), so that an assistant's turn may have them.

    They are the tokenizer's special tokens, and of its other added tokens those that a template
    names or that have bars in them: some families do not declare the markers of their turns as
    special. Other added tokens (runs of spaces, HTML tags) are text. So are tokens of one
    character.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        description: Mapping[str, Any],
        sources: Collection[str],
        named: Collection[str],
    ) -> None:
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {
            token.content: number
            for number, token in added.items()
            if _controls(token, sources, named)
        }
        self.texts = frozenset(self._ids)
        self.markup = frozenset(
            token.content
            for token in added.values()
            if token.content in self.texts
            and not token.special
            and token.content not in named
            and not any(bar in token.content for bar in _BARS)
        )
        self._tokenizer = tokenizer
        self._names = {text: f"{_NAME}{number}{_NAME}" for text, number in self._ids.items()}
        self._pattern = one_of(self.texts)
        self._second = _second_tokenizer(tokenizer, description, self._names)
        # Any text may have the token for what the vocabulary lacks.
        model = description["model"]
        unknown = {self._ids.get(model.get("unk_token") or ""), model.get("unk_id")}
        self._counted = frozenset(number for number in self._ids.values() if number not in unknown)

    def encode(self, printed: str, *, special: bool, escaped: bool) -> list[int]:
        """Token ids of a marked conversation; ``special``: with the tokenizer's own special tokens
        in addition; ``escaped``: the template may print characters as JSON's escapes.

        Raises:
            BadRequestError: there is a control token too many or too few.
        """
        named, expected = self._pattern.subn(lambda found: self._names[found[0]], printed)
        text = without_marks(named, escaped)
        (encoding,) = self._second.encode_batch_fast([text], add_special_tokens=special)
        ids: list[int] = encoding.ids
        found = sum(token in self._counted for token in ids)
        if found != expected + (self._always if special else 0):
            raise BadRequestError(
                "messages: the model's control tokens cannot be told from the text.",
                param="messages",
            )
        return ids

    @cached_property
    def normalizer(self) -> Any | None:
        """What changes a text before control tokens are looked for in it; mostly nothing does."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        changed = any(token.normalized for token in added if token.content in self.texts)
        return self._tokenizer.normalizer if changed else None

    @cached_property
    def _always(self) -> int:
        """Control tokens that the tokenizer adds to any text."""
        ids = self._tokenizer.encode("", add_special_tokens=True).ids
        return sum(token in self._counted for token in ids)


def without_marks(printed: str, escaped: bool) -> str:
    """The same text as the client wrote it."""
    if escaped:
        printed = _ESCAPED_MARKS.sub(r"\1", printed)
    return _MARKS.sub(r"\1", printed)


def one_of(texts: Collection[str]) -> re.Pattern[str]:
    """Finds any of ``texts``, the longest first; nothing where there are none."""
    return re.compile(alternatives(texts) or r"(?!)")


def alternatives(texts: Collection[str]) -> str:
    """The regular expression of any of ``texts``, the longest first."""
    return "|".join(re.escape(text) for text in sorted(texts, key=lambda text: (-len(text), text)))


def _controls(token: AddedToken, sources: Collection[str], named: Collection[str]) -> bool:
    text = token.content
    if len(text) < 2 or text.isspace():
        return False
    if token.special or text in named or any(bar in text for bar in _BARS):
        return True
    return any(text in source for source in sources)


def _second_tokenizer(
    tokenizer: Tokenizer, description: Mapping[str, Any], names: Mapping[str, str]
) -> Tokenizer:
    """The same tokenizer with other names for the control tokens. It shares the first one's model,
    unless that has control tokens in its own vocabulary, where a text could become one of them."""
    model = tokenizer.model
    if not names.keys().isdisjoint(_vocabulary(description["model"])):
        model = _renamed(description["model"], names)
    second = Tokenizer(model)
    for part in ("normalizer", "pre_tokenizer", "post_processor"):
        if (value := getattr(tokenizer, part)) is not None:
            setattr(second, part, value)
    for number, token in sorted(tokenizer.get_added_tokens_decoder().items()):
        name = names.get(token.content, token.content)
        flags = {
            flag: getattr(token, flag)
            for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
        }
        second.add_tokens([AddedToken(name, **flags)])
        if second.token_to_id(name) != number:
            raise ConfigError(
                "models[].prompts.special_tokens: text is not possible with this model's tokenizer "
                f"(the token {token.content!r} has no fixed id); set it to vllm"
            )
    return second


def _vocabulary(model: Mapping[str, Any]) -> Collection[str]:
    vocabulary = model["vocab"]
    return vocabulary if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}


def _renamed(model: Mapping[str, Any], names: Mapping[str, str]) -> Any:
    """The model with other spellings of some of its vocabulary, which no text has."""
    changed = dict(model)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        changed["vocab"] = {names.get(text, text): i for text, i in vocabulary.items()}
    else:
        changed["vocab"] = [[names.get(text, text), score] for text, score in vocabulary]
    if model.get("unk_token") in names:
        changed["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        changed["merges"] = [each for each in model["merges"] if not _makes(each, names)]
    return Tokenizer.from_str(json.dumps({"version": "1.0", "model": changed})).model


def _makes(merge: str | list[str], names: Mapping[str, str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names
