"""Chat templates and tokens: the shapes of templates that are about, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.gateway.conversation import Conversation
from deployments.gateway.prompts import PromptEncoder, locate_tokenizer
from deployments.gateway.token_bounds import most_bytes_per_token
from weir.errors import BadRequestError, ConfigError, ContextLengthError

TEACHER = PromptEncoder(Path(__file__).parents[2] / "platform/weir/artifacts/teacher")

PARTS: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "world"}],
    }
]
LOOPING = (
    "{% for m in messages %}"
    "{% for part in m['content'] %}{{ part['text'] }}|{% endfor %}{% endfor %}"
)
NAMED = (
    "{% for m in messages %}{% set content = m.get('content') %}"
    "{% for part in content %}{{ part['text'] }}|{% endfor %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m.role }} {{ m.content }}{% endfor %}"


@pytest.fixture
def encoder_with(tokenizer_folder: Path, tmp_path: Path) -> Any:
    def make(template: str | None) -> PromptEncoder:
        shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
        config = {} if template is None else {"chat_template": template}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return PromptEncoder(tmp_path)

    return make


def _text(encoder: PromptEncoder, messages: list[dict[str, Any]]) -> str:
    ids = encoder.encode_chat(Conversation(messages))
    words = ["[unk]", "user", "system", "assistant", ":", "hello", "world"]
    return " ".join(words[i] for i in ids)


@pytest.mark.parametrize("template", [LOOPING, NAMED])
def test_templates_that_take_parts_get_parts(encoder_with: Any, template: str) -> None:
    assert _text(encoder_with(template), PARTS) == "hello [unk] world [unk]"


def test_templates_that_take_text_get_parts_joined(encoder_with: Any) -> None:
    assert _text(encoder_with(PLAIN), PARTS) == "user hello world"


def test_developers_are_system_where_a_template_knows_none(encoder_with: Any) -> None:
    developer = [{"role": "developer", "content": "hello"}]
    assert _text(encoder_with(PLAIN), developer) == "system hello"


def test_a_template_may_refuse(encoder_with: Any) -> None:
    encoder = encoder_with("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BadRequestError, match="roles must alternate") as refused:
        encoder.encode_chat(Conversation(PARTS))
    assert refused.value.param == "messages"


def test_a_refusal_without_words_has_its_kind(encoder_with: Any) -> None:
    with pytest.raises(BadRequestError, match="refused them: TemplateError"):
        encoder_with("{{ raise_exception('') }}").encode_chat(Conversation(PARTS))


def test_a_template_cannot_reach_python(encoder_with: Any) -> None:
    encoder = encoder_with("{{ messages.__class__.__mro__ }}")
    with pytest.raises(BadRequestError):
        encoder.encode_chat(Conversation(PARTS))


def test_without_a_template_there_is_no_chat(encoder_with: Any) -> None:
    with pytest.raises(BadRequestError, match="no chat template"):
        encoder_with(None).encode_chat(Conversation(PARTS))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        PromptEncoder(locate_tokenizer(str(tmp_path)))


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0].content + 1 }}",
        "{{ messages|items|list }}",
        "{{ undefined.field }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages | tojson(nonsense=1) }}",
    ],
)
def test_whatever_a_template_raises_is_the_requests_fault(encoder_with: Any, template: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        encoder_with(template).encode_chat(Conversation(PARTS))
    assert refused.value.param == "messages"


def test_a_broken_template_is_the_operators_fault(encoder_with: Any) -> None:
    with pytest.raises(ConfigError, match="chat template"):
        encoder_with("{% for %}")


def test_half_a_surrogate_pair_is_refused(encoder_with: Any) -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}
    turns = [{"role": "assistant", "tool_calls": [call]}]
    encoder = encoder_with("{{ messages[0].tool_calls[0].function.arguments.a }}")
    with pytest.raises(BadRequestError, match="Unicode"):
        encoder.encode_chat(Conversation(turns))


def test_deep_arguments_do_not_exhaust_the_stack(encoder_with: Any) -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": "[" * 100_000}}
    turns = [{"role": "assistant", "tool_calls": [call]}]
    template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}"
    assert encoder_with(template).render_chat(Conversation(turns)) == "{}"


def test_tools_may_have_a_template_of_their_own(tokenizer_folder: Path, tmp_path: Path) -> None:
    shutil.copy(tokenizer_folder / "tokenizer.json", tmp_path)
    named = [{"name": "default", "template": "hello"}, {"name": "tool_use", "template": "world"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    encoder = PromptEncoder(tmp_path)
    assert encoder.render_chat(Conversation(PARTS)) == "hello"
    assert encoder.render_chat(Conversation(PARTS, tools=[{"type": "function"}])) == "world"


@given(st.text(max_size=200))
def test_the_bound_is_never_above_the_count(text: str) -> None:
    assert TEACHER.fewest_tokens(text) <= len(TEACHER.encode_text(text))


def test_a_prompt_too_long_for_certain_is_not_tokenized() -> None:
    text = "a b " * 10_000
    assert 0 < TEACHER.fewest_tokens(text) <= len(TEACHER.encode_text(text))
    with pytest.raises(ContextLengthError, match="at least"):
        TEACHER.encode_text(text, at_most=100)
    turns = [{"role": "user", "content": text}]
    with pytest.raises(ContextLengthError):
        TEACHER.encode_chat(Conversation(turns), at_most=100)


def test_words_without_a_bound(tokenizer_folder: Path) -> None:
    assert PromptEncoder(tokenizer_folder).fewest_tokens("x" * 10_000) == 0


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({}, 3),
        ({"normalizer": {"type": "NFC"}}, 9),
        ({"normalizer": {"type": "Lowercase"}}, None),
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, 3),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}}, None),
        ({"pre_tokenizer": {"type": "Whitespace"}}, None),
        ({"added_tokens": [{"content": "<end>", "rstrip": True}]}, None),
        ({"added_tokens": [{"content": "<end>"}]}, 5),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "byte_fallback": False}}, None),
    ],
)
def test_bytes_per_token(change: dict[str, Any], bound: int | None) -> None:
    model = {"type": "BPE", "byte_fallback": True, "vocab": {"▁": 0, "ab": 1}}
    assert most_bytes_per_token({"model": model, **change}) == bound


def test_ids_become_text_again() -> None:
    text = "Größe 😀\n"
    assert TEACHER.decode(TEACHER.encode_text(text)) == text
