"""Chat templates of the styles in use, each small, and conversations that exercise them."""

from __future__ import annotations

from typing import Any

CHATML = """\
{%- if tools %}
<|im_start|>system
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{% endif %}
# Tools
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
<|im_end|>
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}
<|im_start|>assistant
{{ message.content }}
{%- for call in message.tool_calls %}
{%- set f = call.function %}
<tool_call>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}</tool_call>
{%- endfor %}<|im_end|>
{%- elif message.role == 'tool' %}
<|im_start|>user
<tool_response>{{ message.content }}</tool_response><|im_end|>
{%- else %}
<|im_start|>{{ message.role }}{% if message.name %} name={{ message.name }}{% endif %}

{{ message.content }}<|im_end|>
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
<|im_start|>assistant
{%- if enable_thinking is defined and enable_thinking is false %}
<think></think>
{%- endif %}
{%- endif %}
"""

LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}{% set date_string = "26 Jul 2024" %}{% endif %}
{%- set loop_messages = messages %}
{%- if tools is not none %}
{{- "<|start_header_id|>system<|end_header_id|>Environment: ipython\\nToday: " + date_string }}
{%- for t in tools %}
{{- t | tojson(indent=4) }}
{%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
{%- if 'tool_calls' in message %}
{%- if not message.tool_calls|length == 1 %}
{{- raise_exception("one tool call at a time") }}
{%- endif %}
{%- set tool_call = message.tool_calls[0].function %}
{{- '{"name": "' + tool_call.name + '", "parameters": ' + (tool_call.arguments | tojson) + "}" }}
{{- "<|eot_id|>" }}
{%- elif message.role == "tool" or message.role == "ipython" %}
{{- "<|start_header_id|>ipython<|end_header_id|>" }}
{%- set content = message.content %}
{%- if content is mapping or content is iterable and content is not string %}
{{- message.content | tojson }}
{%- else %}{{- message.content }}{%- endif %}
{{- "<|eot_id|>" }}
{%- else %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>' }}{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
{%- if message["role"] == "user" %}
{%- if tools and loop.last %}{{- "[AVAILABLE_TOOLS][" }}
{%- for tool in tools %}{%- set tool = tool.function %}
{{- '{"type": "function", "function": {' }}
{%- for key, val in tool.items() if key != "return" %}
{%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
{%- if not loop.last %}{{- ", " }}{%- endif %}
{%- endfor %}{{- "}}" }}
{%- endfor %}{{- "][/AVAILABLE_TOOLS]" }}{%- endif %}
{%- if loop.last and system_message is defined %}
{{- "[INST]" + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
{%- else %}{{- "[INST]" + message["content"] + "[/INST]" }}{%- endif %}
{%- elif message["role"] == "tool" %}
{{- '[TOOL_RESULTS]' + message.content|string + ' ' + message.tool_call_id + "[/TOOL_RESULTS]" }}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- "[TOOL_CALLS]" }}
{%- for tool_call in message.tool_calls %}{{- tool_call|tojson }}{%- endfor %}{{- eos_token }}
{%- else %}{{- message["content"] + eos_token }}{%- endif %}
{%- endfor %}
"""

ITEMS = """\
{%- set ns = namespace(count=0) -%}
{% for m in messages %}
{% generation %}{{ m.role }}: {{ m.content }}{% endgeneration %}
{% for call in m.tool_calls or [] %}
<function={{ call.function.name }}>
{% for k, v in call.function.arguments|items %}{% set ns.count = ns.count + 1 %}
<parameter={{ k }}>{{ v if v is string else v | tojson }}</parameter>
{% endfor %}
{% endfor %}
{% if loop.index > 50 %}{% break %}{% endif %}
{% endfor %}{{ ns.count }}
"""

JSON = """\
{% for t in tools or [] %}{{ t | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=true) }}
{{ t | tojson(indent=2, ensure_ascii=False) }}{{ t.function | tojson(True, 1) }}{% endfor %}
{% for m in messages %}{{ m | tojson(sort_keys=true) }}{{ m | tojson }}
{% endfor %}{{ documents | tojson if documents }}
"""

PARTS = """\
{%- for message in messages -%}
<{{ message['role'] }}>
{%- for part in message['content'] -%}
{%- if part.type == 'text' -%}{{ part.text }}{{ part.cache_control|tojson if part.cache_control }}|
{%- else -%}<image>{%- endif -%}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<assistant>{%- endif -%}
"""

REASONING = """\
{%- for message in messages -%}
{%- if message.role == 'developer' %}{{ raise_exception('no developers') }}{% endif %}
[{{ message.role }}]
{%- set said = message.reasoning_content %}
{%- if said is string %}<think>{{ said }}</think>{% endif %}
{%- if message.thinking %}<|channel|>{{ message.thinking }}{% endif %}
{{- message.content.split('</think>')[-1].lstrip('\\n') }}
{%- endfor -%}
Effort: {{ reasoning_effort | default('medium') }}; {{ enable_thinking | default('unset') }}
{%- for d in documents or [] %}{{ d.title }}={{ d.text }}{% endfor %}
"""

NAMES = """\
{% for content in messages %}{{ content.role }}{% for c in content.content %}{{ c }}{% endfor %}
{% endfor %}{{ mode }}{{ bos_token }}{{ pad_token }}
"""

DEVELOPER = """\
{% for m in messages %}{% if m.role == "developer" %}(dev){% endif %}{{ m.content }};{% endfor %}
"""

TEMPLATES = {
    "chatml": CHATML,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "items": ITEMS,
    "json": JSON,
    "parts": PARTS,
    "reasoning": REASONING,
    "names": NAMES,
    "developer": DEVELOPER,
}

USER = {"role": "user", "content": "  Größe? 😀 <|end|>\n "}
_BARE = {"type": "function", "function": {"name": "now"}}
_FULL = {
    "type": "function",
    "cache_control": {"type": "ephemeral"},
    "function": {
        "name": "weather",
        "description": "Wie ist's <dort> & da?",
        "strict": True,
        "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}},
    },
}


def _call(arguments: str, **more: Any) -> dict[str, Any]:
    function = {"name": "weather", "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **more}


def _round_trip(arguments: str, **more: Any) -> list[dict[str, Any]]:
    return [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [_call(arguments, **more)]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "5 °C"}]},
        {"role": "user", "content": "and now?"},
    ]


BODIES: dict[str, dict[str, Any]] = {
    "plain": {"messages": [{"role": "system", "content": "Be brief."}, USER]},
    "no generation prompt": {"messages": [USER], "add_generation_prompt": False},
    "several turns": {"messages": [USER, {"role": "assistant", "content": " Yes. "}, USER, USER]},
    "parts": {
        "messages": [
            {
                "role": "user",
                "name": "bob",
                "content": [
                    "as it is",
                    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                    {"type": "input_text", "text": " b "},
                    {"type": "refusal", "refusal": "no"},
                ],
            }
        ]
    },
    "developer": {
        "messages": [
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            USER,
            {"role": "developer", "content": "three"},
        ]
    },
    "developer alone": {"messages": [{"role": "developer", "content": "two"}, USER]},
    "tools": {"messages": [USER], "tools": [_BARE, _FULL]},
    "tools, none chosen": {"messages": [USER], "tools": [_BARE], "tool_choice": "none"},
    "tool round trip": {
        "messages": _round_trip('{"ort": "Köln", "n": [1, 2.50]}'),
        "tools": [_FULL],
    },
    "streamed call": {"messages": _round_trip('{"ort":"Rom"}', index=0)},
    "empty arguments": {"messages": _round_trip("")},
    "null arguments": {"messages": _round_trip("null")},
    "list of arguments": {"messages": _round_trip("[1]")},
    "broken arguments": {"messages": _round_trip("{not json")},
    "no calls": {"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": []}, USER]},
    "function result": {"messages": [USER, {"role": "function", "name": "f", "content": "1"}]},
    "reasoning": {
        "messages": [
            USER,
            {"role": "assistant", "content": "4", "reasoning": "2+2"},
            USER,
            {"role": "assistant", "content": "5", "reasoning_content": "2+3"},
            USER,
        ],
        "reasoning_effort": "high",
    },
    "effort none": {"messages": [USER], "reasoning_effort": "none"},
    "arguments": {
        "messages": [USER],
        "reasoning_effort": "low",
        "chat_template_kwargs": {
            "enable_thinking": False,
            "date_string": "today",
            "unread": 1,
            "mode": "auto",
            "pad_token": "<PAD>",
        },
    },
    "documents": {"messages": [USER], "documents": [{"title": "t", "text": "x"}]},
    "continued": {
        "messages": [USER, {"role": "assistant", "content": "It is "}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "special tokens": {"messages": [USER], "add_special_tokens": True},
}
