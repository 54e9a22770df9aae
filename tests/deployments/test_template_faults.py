"""Whatever a client sends, a chat template makes a prompt of it or it is a 400 with a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.gateway.bodies.requests import ChatBody, parse_body
from deployments.gateway.chat_templates import ChatTemplate
from deployments.gateway.conversation import shape_messages
from tests.deployments.chat_templates import TEMPLATES
from tests.deployments.family_templates import FAMILY_TEMPLATES
from weir.errors import BadRequestError

COMPILED = {name: ChatTemplate(each) for name, each in (TEMPLATES | FAMILY_TEMPLATES).items()}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_TEXT = st.text(max_size=20) | st.sampled_from(["</think>", "{{ 1 / 0 }}", "{% if %}", "<|end|>"])
_CONTENT = (
    _TEXT | st.none() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": _TEXT}))
)
_ARGUMENTS = st.sampled_from(["", "null", "[1]", "{not json", "7"]) | _JSON.map(json.dumps)
_CALL = st.fixed_dictionaries(
    {
        "id": st.text(min_size=1, max_size=5),
        "type": st.just("function"),
        "function": st.fixed_dictionaries({"name": st.just("f"), "arguments": _ARGUMENTS}),
    }
)
_MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
        "content": _CONTENT,
    },
    optional={
        "name": _TEXT,
        "tool_calls": st.lists(_CALL, max_size=3),
        "tool_call_id": st.text(max_size=5),
        "reasoning": _TEXT | st.none(),
    },
)
_TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": st.just("f")},
            optional={
                "description": _TEXT,
                "parameters": st.dictionaries(st.sampled_from(["type", "properties", "x"]), _JSON),
            },
        ),
    }
)
_BODY = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(_MESSAGE, min_size=1, max_size=4)},
    optional={
        "tools": st.lists(_TOOL, min_size=1, max_size=2),
        "chat_template_kwargs": st.dictionaries(
            st.sampled_from(["enable_thinking", "thinking", "controls", "bos_token", "x"]), _JSON
        ),
        "documents": st.lists(st.dictionaries(st.sampled_from(["title", "text"]), _TEXT)),
        "add_generation_prompt": st.booleans(),
    },
)


def _render(template: ChatTemplate, body: dict[str, Any]) -> str:
    asked = parse_body(ChatBody, json.dumps(body).encode()).conversation()
    named = {"bos_token": "<s>", "eos_token": "</s>"} | dict(asked.arguments)
    return template.render(
        shape_messages(asked, template),
        tools=asked.tools or None,
        documents=asked.documents,
        add_generation_prompt=asked.add_generation_prompt,
        continue_final_message=asked.continue_final_message,
        arguments={k: v for k, v in named.items() if k in template.variables},
    )


@pytest.mark.parametrize("name", COMPILED)
@settings(max_examples=60, deadline=None)
@given(body=_BODY)
def test_a_prompt_or_a_reason(name: str, body: dict[str, Any]) -> None:
    try:
        said = _render(COMPILED[name], body)
    except BadRequestError as refused:
        said = str(refused)
    assert said


@pytest.mark.parametrize("name", COMPILED)
def test_a_plain_question_is_a_prompt(name: str) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "How warm is it?"}]}
    # One style prints a text character by character, each on a line of its own.
    assert "How warm is it?" in _render(COMPILED[name], body).replace("\n", "") or name == "names"
