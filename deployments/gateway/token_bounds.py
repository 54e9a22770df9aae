"""How many tokens a text has at least, known from its length alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Unicode's composed form is at most so many times shorter than what it is made from (in UTF-8).
_COMPOSITION = 3


def most_bytes_per_token(tokenizer: Mapping[str, Any]) -> int | None:
    """The most bytes of text (UTF-8) that one token can stand for; None if there is no bound.

    ``tokenizer`` is the content of ``tokenizer.json``. There is a bound where each byte of the
    text ends up in a token: byte-level BPE, or BPE that falls back to bytes. Words that become one
    unknown token, normalizers that drop text and tokens that swallow the spaces around them have
    none. Tokens are spelled with at least one character per byte, so a spelling's own length in
    UTF-8 is never less than what it stands for.
    """
    model = tokenizer["model"]
    steps = [*_steps(tokenizer.get("pre_tokenizer")), *_steps(tokenizer.get("decoder"))]
    keeps_bytes = model.get("byte_fallback") or any(step["type"] == "ByteLevel" for step in steps)
    if model.get("type") != "BPE" or not keeps_bytes:
        return None
    if not all(_keeps_text(step) for step in _steps(tokenizer.get("pre_tokenizer"))):
        return None
    added = tokenizer.get("added_tokens") or ()
    if any(token.get("lstrip") or token.get("rstrip") for token in added):
        return None
    normalizers = _steps(tokenizer.get("normalizer"))
    if not all(_only_grows(step) for step in normalizers):
        return None
    texts = [*model["vocab"], *(token["content"] for token in added)]
    composes = any(step["type"] == "NFC" for step in normalizers)
    return max(len(text.encode()) for text in texts) * (_COMPOSITION if composes else 1)


def _steps(step: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    if step["type"] != "Sequence":
        return [step]
    inner = next(step[key] for key in ("normalizers", "pretokenizers", "decoders") if key in step)
    return [each for part in inner for each in _steps(part)]


def _keeps_text(step: Mapping[str, Any]) -> bool:
    known = step["type"] in ("ByteLevel", "Split", "Digits", "Punctuation", "Metaspace")
    return known and step.get("behavior") != "Removed"


def _only_grows(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        old = step["pattern"].get("String")
        return old is not None and len(step["content"].encode()) >= len(old.encode())
    return step["type"] in ("NFC", "Prepend", "ByteLevel")
