"""vLLM's parsers of tool calls and reasoning: which there are, and which a model family needs.

The names are those that vLLM 0.29 registers; ``tests/weir/test_parsers.py`` compares them with its
registry. They are written down here because reading settings must not import vLLM (seconds).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TOOL_PARSERS = frozenset(
    """
    apertus cohere_command3 cohere_command4 deepseek_v3 deepseek_v31 deepseek_v32 deepseek_v4
    dots ernie45 functiongemma gemma4 gigachat3 glm45 glm47 granite granite-20b-fc granite4
    hermes hunyuan_a13b hy_v3 hy_v4 inkling internlm jamba kimi_k2 kimi_k3 lfm2 ling3
    llama3_json llama4_json llama4_pythonic longcat mimo minicpm5 minimax_m2 minimax_m3 mistral
    muse_glimmer olmo3 openai phi4_mini_json poolside_v1 pythonic qwen3_coder qwen3_xml seed_oss
    step3 step3p5 xlam
    """.split()  # noqa: SIM905 - one name a line would be 80 lines
)
REASONING_PARSERS = frozenset(
    """
    cohere_command3 cohere_command4 deepseek_r1 deepseek_v3 deepseek_v4 ernie45 gemma4 glm45
    glm47 granite holo2 hunyuan_a13b hy_v3 hy_v4 inkling kimi_k2 kimi_k3 ling3 mimo minimax_m2
    minimax_m2_append_think minimax_m3 mistral muse_glimmer nemotron_v3 olmo3 openai_gptoss
    poolside_v1 qwen3 seed_oss step3 step3p5
    """.split()  # noqa: SIM905 - one name a line would be 80 lines
)


@dataclass(frozen=True)
class Family:
    """Models whose source's last part begins as ``pattern`` says, and their parsers' names.

    None: vLLM has no parser for the family, or its models do not reason.
    """

    pattern: str
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None


#: The first that matches counts. Names of base models (without instruct) are matched only where
#: the family publishes one kind under that name.
FAMILIES = (
    Family(r"(meta-)?llama-3\.[123]-.*instruct", "llama3_json"),
    Family(r"llama-4-.*instruct", "llama4_pythonic"),
    Family(r"hermes-(2-pro|3)-", "hermes"),
    Family(r"magistral-", "mistral", "mistral"),
    Family(r"(mistral|ministral|mixtral|devstral)-.*(instruct|small|devstral)", "mistral"),
    Family(r"qwen2\.5-(?!coder|math|vl).*instruct", "hermes"),
    Family(r"qwq-32b", "hermes", "deepseek_r1"),
    Family(r"qwen3-coder", "qwen3_coder"),
    Family(r"qwen3-[0-9.]+b.*instruct", "hermes"),
    Family(r"qwen3-[0-9.]+b(?!.*base)", "hermes", "qwen3"),
    Family(r"deepseek-r1-distill", None, "deepseek_r1"),
    Family(r"deepseek-r1-0528(?!-qwen)", "deepseek_v3", "deepseek_r1"),
    Family(r"deepseek-r1", None, "deepseek_r1"),
    Family(r"deepseek-v3\.1(?!.*base)", "deepseek_v31", "deepseek_v3"),
    Family(r"deepseek-v3\.2", "deepseek_v32", "deepseek_v3"),
    Family(r"deepseek-v3(-0324)?$", "deepseek_v3"),
    Family(r"granite-3\.2-.*instruct", "granite", "granite"),
    Family(r"granite-3\.[0-9]-.*instruct", "granite"),
    Family(r"(c4ai-)?command-a-reasoning", "cohere_command3", "cohere_command3"),
    Family(r"glm-4\.[56](?!v)(?!.*base)", "glm45", "glm45"),
    Family(r"glm-4\.7", "glm47", "glm47"),
    Family(r"kimi-k2-thinking", "kimi_k2", "kimi_k2"),
    Family(r"kimi-k2-instruct", "kimi_k2"),
    Family(r"gpt-oss-", "openai", "openai_gptoss"),
    Family(r"phi-4-mini-instruct", "phi4_mini_json"),
    Family(r"seed-oss-.*instruct", "seed_oss", "seed_oss"),
    Family(r"minimax-m2", "minimax_m2", "minimax_m2"),
)


def with_parsers(source: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments with the parsers of the family of ``source``, where ``args`` name none.

    What ``args`` name stays, null too, which means no parser. Without a tool parser, or with
    ``enable_auto_tool_choice: false``, the model cannot call tools.
    """
    name = source.rstrip("/").rsplit("/", 1)[-1].lower()
    family = next((each for each in FAMILIES if re.match(each.pattern, name)), None)
    if family is None:
        return dict(args)
    known: dict[str, Any] = {}
    if family.tool_call_parser and args.get("enable_auto_tool_choice") is not False:
        known |= {"tool_call_parser": family.tool_call_parser}
        if args.get("tool_call_parser", family.tool_call_parser) is not None:
            known |= {"enable_auto_tool_choice": True}
    if family.reasoning_parser:
        known |= {"reasoning_parser": family.reasoning_parser}
    return {**known, **args}


def check_parsers(args: Mapping[str, Any]) -> None:
    """Parsers that ``args`` name must exist, unless a plugin may bring them.

    Raises:
        ValueError: vLLM has no parser of that name.
    """
    for key, plugin, names in (
        ("tool_call_parser", "tool_parser_plugin", TOOL_PARSERS),
        ("reasoning_parser", "reasoning_parser_plugin", REASONING_PARSERS),
    ):
        named = args.get(key)
        if named is not None and not isinstance(named, str):
            raise ValueError(f"{key}: a name or null, not {named!r}")
        if named and not args.get(plugin) and named not in names:
            raise ValueError(f"{key}: vLLM has no {named!r}; it has {', '.join(sorted(names))}")
