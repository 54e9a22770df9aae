"""Chat templates and tokens: the shapes of templates that are about, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.conversation import Conversation
from deployments.gateway.prompts import PromptEncoder, locate_tokenizer
from weir.errors import BadRequestError, ConfigError

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
