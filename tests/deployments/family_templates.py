"""Chat templates in the manner of model families, reconstructed.

None is a publisher's file. Each has the structure that its family's public template is known for
(markers, order, where tools and results stand, what is trimmed or split) in our own words, so that
every construct which the family relies on is compared with vLLM's renderer.
"""

from __future__ import annotations

# Google's Gemma 2 and 3: no system turn, it goes before the first user's text; model for assistant.
GEMMA = """\
{{ bos_token }}
{%- set first = "" %}{%- set turns = messages %}
{%- if messages[0]['role'] == 'system' %}
{%- if messages[0]['content'] is string %}{%- set first = messages[0]['content'] + '\\n\\n' %}
{%- else %}{%- set first = messages[0]['content'][0]['text'] + '\\n\\n' %}{%- endif %}
{%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception("user and assistant must alternate") }}
{%- endif %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}
{%- if message['content'] is string %}{{ message['content'] | trim }}
{%- elif message['content'] is iterable %}
{%- for item in message['content'] %}
{%- if item['type'] == 'text' %}{{ item['text'] | trim }}{%- endif %}
{%- endfor %}
{%- else %}{{ raise_exception("content of an unknown kind") }}{%- endif %}
{{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{%- endif %}
"""

# Microsoft's Phi-4: role and text between three markers; Phi-4-mini's tools in the system turn.
PHI = """\
{%- for message in messages %}
{%- if message['role'] == 'system' and tools is not none %}
{{- '<|system|>' + message['content'] + '<|tool|>' + (tools | tojson) + '<|/tool|><|end|>' }}
{%- else %}{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- else %}{{- eos_token }}{%- endif %}
"""

# IBM's Granite 3: a dated system text where none is given, tools and documents as roles.
GRANITE = """\
{%- if messages[0]['role'] == 'system' %}
{%- set system_text = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}
{%- else %}
{%- set system_text = "Knowledge until April 2024. Date: " + strftime_now('%Y') + "." %}
{%- if tools and documents %}{%- set system_text = system_text + " Tools and documents." %}
{%- elif thinking %}{%- set system_text = system_text + " Think first." %}{%- endif %}
{%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_text + '<|end_of_text|>\\n' }}
{%- if tools %}
{{- '<|start_of_role|>tools<|end_of_role|>' + (tools | tojson(indent=4)) + '<|end_of_text|>\\n' }}
{%- endif %}
{%- for document in documents or [] %}
{{- '<|start_of_role|>document<|end_of_role|>' + document['text'] + '<|end_of_text|>\\n' }}
{%- endfor %}
{%- for message in loop_messages %}
{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + message['content'] }}
{{- '<|end_of_text|>\\n' }}
{%- if loop.last and add_generation_prompt %}
{{- '<|start_of_role|>assistant' }}
{%- if controls %}{{ ' ' + controls | tojson() }}{%- endif %}{{- '<|end_of_role|>' }}
{%- endif %}
{%- endfor %}
"""

# DeepSeek's R1 and V3: all systems first, calls in nested markers, reasoning cut from old turns.
DEEPSEEK = """\
{%- set ns = namespace(is_first=false, is_tool=false, system='') %}
{%- for message in messages if message['role'] == 'system' %}
{%- set ns.system = ns.system + ('\\n\\n' if ns.is_first else '') + message['content'] %}
{%- set ns.is_first = true %}
{%- endfor %}
{{- bos_token + ns.system }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{%- set ns.is_tool = false %}
{{- '<|User|>' + message['content'] }}
{%- elif message['role'] == 'assistant' and message['tool_calls'] %}
{%- for tool in message['tool_calls'] %}
{{- '<|Assistant|>' if loop.first else '\\n' }}
{{- '<|call|>' + tool['type'] + '<|sep|>' + tool['function']['name'] + '\\n```json\\n' }}
{{- (tool['function']['arguments'] | tojson) + '\\n```<|end|>' }}
{%- endfor %}
{%- elif message['role'] == 'assistant' %}
{%- set content = message['content'] %}
{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}{%- endif %}
{{- ('' if ns.is_tool else '<|Assistant|>') + content + eos_token }}
{%- elif message['role'] == 'tool' %}
{{- ('\\n' if ns.is_tool else '<|outputs|>') + message['content'] }}{%- set ns.is_tool = true %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and not ns.is_tool %}{{- '<|Assistant|><think>\\n' }}{%- endif %}
"""

# OpenAI's gpt-oss: channels, a system turn with the effort, developers, tools as TypeScript types.
HARMONY = """\
{%- macro type_of(spec) -%}
{%- if spec.enum -%}{%- for v in spec.enum -%}"{{ v }}"{{ " | " if not loop.last }}{%- endfor -%}
{%- elif spec.type == 'integer' or spec.type == 'number' -%}number
{%- elif spec.type == 'array' -%}{{ type_of(spec['items'] or {}) }}[]
{%- else -%}{{ spec.type or 'any' }}{%- endif -%}
{%- endmacro -%}
{{- '<|start|>system<|message|>Reasoning: ' + (reasoning_effort or 'medium') + '<|end|>' }}
{%- if messages[0].role in ['developer', 'system'] %}
{%- set told = messages[0].content %}{%- set rest = messages[1:] %}
{%- else %}{%- set told = '' %}{%- set rest = messages %}{%- endif %}
{%- if told or tools %}
{{- '<|start|>developer<|message|>' + told }}
{%- for tool in tools or [] %}
{{- '\\n// ' ~ (tool.function.description or '') ~ '\\ntype ' ~ tool.function.name ~ ' = (_: {' }}
{%- for name, spec in (tool.function.parameters or {}).get('properties', {}).items() %}
{{- name ~ '?: ' ~ type_of(spec) ~ ', ' }}
{%- endfor %}{{- '}) => any;' }}
{%- endfor %}{{- '<|end|>' }}
{%- endif %}
{%- set last = namespace(call=none) %}
{%- for message in rest %}
{%- if message.role == 'assistant' and message.tool_calls %}
{%- set call = message.tool_calls[0].function %}{%- set last.call = call.name %}
{%- if message.thinking %}{{- '<|channel|>analysis<|message|>' + message.thinking }}{%- endif %}
{{- '<|start|>assistant to=functions.' + call.name + '<|message|>' + call.arguments | tojson }}
{%- elif message.role == 'tool' %}
{%- if last.call is none %}{{- raise_exception("a result without a call") }}{%- endif %}
{{- '<|start|>functions.' + last.call + '<|message|>' + message.content | tojson + '<|end|>' }}
{%- else %}{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}
"""

# Z.ai's GLM-4.5: tools in XML, calls as key and value tags, thinking switched by an argument.
GLM = """\
[gMASK]<sop>
{%- if tools %}
<|system|>
# Tools
{% for tool in tools %}{{ tool | tojson(ensure_ascii=False) }}
{% endfor %}{%- endif %}
{%- macro visible(content) -%}
{%- if content is string %}{{- content }}
{%- elif content is iterable and content is not mapping %}
{%- for item in content %}{{- item.text if item is mapping else item }}{%- endfor %}
{%- endif %}
{%- endmacro %}
{%- for m in messages %}
{%- if m.role == 'user' %}<|user|>
{{ visible(m.content) }}
{{- '/nothink' if enable_thinking is defined and not enable_thinking else '' }}
{%- elif m.role == 'assistant' %}<|assistant|>
{%- set content = visible(m.content) %}{%- set thought = m.reasoning_content or '' %}
{%- if '</think>' in content %}
{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{ '<think>' + thought.strip() + '</think>' }}
{%- if content.strip() %}{{ '\\n' + content.strip() }}{% endif %}
{%- for tc in m.tool_calls or [] %}{%- set tc = tc.function %}
{{ '\\n<tool_call>' + tc.name }}
{%- for k, v in tc.arguments.items() %}
<arg_key>{{ k }}</arg_key>
<arg_value>{{ v if v is string else v | tojson(ensure_ascii=False) }}</arg_value>
{%- endfor %}</tool_call>
{%- endfor %}
{%- elif m.role == 'tool' %}<|observation|>
<tool_response>{{ visible(m.content) }}</tool_response>
{%- elif m.role == 'system' %}<|system|>
{{ visible(m.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{%- endif %}
"""

# Moonshot's Kimi K2: every turn is role marker, name, middle marker; call ids in the text.
KIMI = """\
{%- if tools -%}
<|im_system|>tool_declare<|im_middle|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>
{%- endif -%}
{%- for message in messages -%}
{%- set name = message.get('name') or message['role'] -%}
<|im_{{ message['role'] }}|>{{ name }}<|im_middle|>
{%- if message['role'] == 'assistant' and message.get('tool_calls') -%}
{{ message['content'] or '' }}
{%- for call in message['tool_calls'] -%}
<|call|>{{ call['id'] }}<|args|>
{%- if call['function']['arguments'] is string -%}{{ call['function']['arguments'] }}
{%- else -%}{{ call['function']['arguments'] | tojson }}{%- endif -%}
{%- endfor -%}
{%- elif message['role'] == 'tool' -%}
## Return of {{ message.tool_call_id }}
{{ message['content'] }}
{%- elif message['content'] is string -%}{{ message['content'] }}
{%- elif message['content'] is not none -%}
{%- for part in message['content'] -%}{{ part['text'] }}{%- endfor -%}
{%- endif -%}<|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}
"""

# Cohere's Command R: turns in paired markers, tools as text of the system turn, results as a list.
COMMAND = """\
{{ bos_token }}
{%- set told = messages[0]['content'] if messages[0]['role'] == 'system' else 'Be helpful.' %}
{%- set loop_messages = messages[1:] if messages[0]['role'] == 'system' else messages %}
{{- '<|START|><|SYSTEM|>' + told }}
{%- for tool in tools or [] %}
{{- '\\ndef ' + tool.function.name + '(' }}
{%- for name, spec in ((tool.function.parameters or {}).properties or {}) | items %}
{{- name + ': ' + (spec.type | string | upper) + (', ' if not loop.last else '') }}
{%- endfor %}{{- ')' }}
{%- endfor %}{{- '<|END|>' }}
{%- for message in loop_messages %}
{%- set content = message['content'] %}
{%- if message.role | lower == 'user' %}{{- '<|START|><|USER|>' + content.strip() + '<|END|>' }}
{%- elif message.tool_calls %}
{{- '<|START|><|CHATBOT|>Action: [' }}
{%- for call in message.tool_calls %}
{{- {'tool_name': call.function.name, 'parameters': call.function.arguments} | tojson(indent=4) }}
{{- ',' if not loop.last }}
{%- endfor %}{{- ']<|END|>' }}
{%- elif message.role == 'tool' %}
{{- '<|START|><|SYSTEM|><results>' ~ loop.index0 ~ content.strip() ~ '</results><|END|>' }}
{%- else %}{{- '<|START|><|CHATBOT|>' + content.strip() + '<|END|>' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|START|><|CHATBOT|>' }}{%- endif %}
"""

FAMILY_TEMPLATES = {
    "command": COMMAND,
    "gemma": GEMMA,
    "phi": PHI,
    "granite": GRANITE,
    "deepseek": DEEPSEEK,
    "harmony": HARMONY,
    "glm": GLM,
    "kimi": KIMI,
}
