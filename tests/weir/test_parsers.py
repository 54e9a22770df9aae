"""Parsers of tool calls and reasoning: vLLM's names, and each model family's."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from weir.settings import EngineSettings, ModelSettings
from weir.settings.parsers import FAMILIES, REASONING_PARSERS, TOOL_PARSERS, with_parsers

_REGISTERED = """
import json
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
print("=" + json.dumps([ToolParserManager.list_registered(),
                        ReasoningParserManager.list_registered()]))
"""


def test_the_names_are_those_that_vllm_registers() -> None:
    # In a process of its own: importing vLLM warns and takes seconds.
    done = subprocess.run(
        [sys.executable, "-c", _REGISTERED], capture_output=True, text=True, timeout=240, check=True
    )
    tools, reasoning = json.loads(done.stdout.rsplit("=", 1)[1])
    assert set(tools) == TOOL_PARSERS
    assert set(reasoning) == REASONING_PARSERS


def test_every_family_names_parsers_that_exist() -> None:
    assert {each.tool_call_parser for each in FAMILIES} <= {*TOOL_PARSERS, None}
    assert {each.reasoning_parser for each in FAMILIES} <= {*REASONING_PARSERS, None}


@pytest.mark.parametrize(
    ("source", "tools", "reasoning"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_json", None),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "llama4_pythonic", None),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes", None),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistral", None),
        ("mistralai/Magistral-Small-2506", "mistral", "mistral"),
        ("Qwen/Qwen2.5-7B-Instruct", "hermes", None),
        ("Qwen/Qwen3-8B", "hermes", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "hermes", None),
        ("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3_coder", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None, "deepseek_r1"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek_v3", "deepseek_r1"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek_v31", "deepseek_v3"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek_v3", None),
        ("ibm-granite/granite-3.3-8b-instruct", "granite", None),
        ("zai-org/GLM-4.5-Air", "glm45", "glm45"),
        ("moonshotai/Kimi-K2-Instruct", "kimi_k2", None),
        ("openai/gpt-oss-20b", "openai", "openai_gptoss"),
        ("microsoft/Phi-4-mini-instruct", "phi4_mini_json", None),
        ("/models/Qwen3-8B/", "hermes", "qwen3"),
        ("Qwen/Qwen3-8B-Base", None, None),
        ("Qwen/Qwen3-Embedding-8B", None, None),
        ("builtin:teacher", None, None),
    ],
)
def test_parsers_by_family(source: str, tools: str | None, reasoning: str | None) -> None:
    args = ModelSettings(name="m", source=source).engine_args
    assert args.get("tool_call_parser") == tools
    assert args.get("reasoning_parser") == reasoning
    assert args.get("enable_auto_tool_choice", False) is (tools is not None)


@pytest.mark.parametrize(
    ("args", "tools", "enabled"),
    [
        ({"tool_call_parser": "qwen3_xml"}, "qwen3_xml", True),
        ({"tool_call_parser": None}, None, None),
        ({"enable_auto_tool_choice": False}, None, False),
    ],
)
def test_what_settings_name_stays(args: dict[str, Any], tools: Any, enabled: Any) -> None:
    made = with_parsers("Qwen/Qwen3-8B", args | {"reasoning_parser": None})
    assert made.get("tool_call_parser") == tools
    assert made.get("enable_auto_tool_choice") is enabled
    assert made["reasoning_parser"] is None


@pytest.mark.parametrize("key", ["tool_call_parser", "reasoning_parser"])
def test_a_parser_that_does_not_exist_is_named(key: str) -> None:
    with pytest.raises(ValidationError, match=f"{key}: vLLM has no 'hermess'"):
        EngineSettings(args={key: "hermess"})


def test_a_parser_is_a_name() -> None:
    with pytest.raises(ValidationError, match="tool_call_parser: a name or null"):
        EngineSettings(args={"tool_call_parser": ["hermes"]})


def test_the_stub_has_no_parsers() -> None:
    engine = EngineSettings(mode="stub")
    assert ModelSettings(name="m", source="Qwen/Qwen3-8B", engine=engine).engine_args == {}


def test_a_plugin_may_bring_a_parser() -> None:
    args = {"tool_call_parser": "mine", "tool_parser_plugin": "/opt/mine.py"}
    assert EngineSettings(args=args).args == args
