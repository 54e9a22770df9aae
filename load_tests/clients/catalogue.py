"""Which clients there are, where each is installed, and which file tries it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROBES = Path(__file__).parent / "probes"


@dataclass(frozen=True, slots=True)
class Client:
    """One row of the table. ``packages`` are those whose versions are shown."""

    key: str
    title: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProbeFile:
    """A file of probes, run as one process in its environment."""

    name: str
    environment: str
    clients: tuple[Client, ...]

    @property
    def path(self) -> Path:
        """Where it is."""
        return PROBES / self.name

    def expected(self) -> list[str]:
        """All CLIENT/CAPABILITY that belong to clients of this file and stand in its text. Those
        that are put together while it runs cannot be read off it; they are not in the list."""
        text = self.path.read_text("utf-8")
        keys = {client.key for client in self.clients}
        found = re.findall(r'^    "([a-z-]+/[a-z A-Z_]+)":', text, re.MULTILINE)
        return [name for name in found if name.partition("/")[0] in keys]


def _vercel(kind: str, title: str) -> Client:
    package = f"@ai-sdk/{kind.removesuffix('-chat')}"
    return Client(f"vercel-{kind}", f"Vercel AI SDK, {title}", ("ai", package))


FILES = (
    ProbeFile(
        "openai_python.py",
        "sdks",
        (
            Client("openai-python-chat", "openai (Python), chat", ("openai",)),
            Client("openai-python-completions", "openai (Python), completions", ("openai",)),
            Client("openai-python-responses", "openai (Python), Responses", ("openai",)),
        ),
    ),
    ProbeFile(
        "anthropic_python.py",
        "sdks",
        (Client("anthropic-python", "anthropic (Python)", ("anthropic",)),),
    ),
    ProbeFile(
        "clients.mjs",
        "node",
        (
            Client("openai-node-chat", "openai (Node), chat", ("openai",)),
            Client("openai-node-responses", "openai (Node), Responses", ("openai",)),
            Client("anthropic-node", "@anthropic-ai/sdk (Node)", ("@anthropic-ai/sdk",)),
            _vercel("openai", "openai (Responses)"),
            _vercel("openai-chat", "openai.chat()"),
            _vercel("openai-compatible", "openai-compatible"),
            _vercel("anthropic", "anthropic"),
        ),
    ),
    ProbeFile(
        "langchain_chat.py",
        "sdks",
        (
            Client("langchain-openai", "LangChain ChatOpenAI", ("langchain-openai",)),
            Client(
                "langchain-openai-responses",
                "LangChain ChatOpenAI, use_responses_api",
                ("langchain-openai",),
            ),
            Client("langchain-anthropic", "LangChain ChatAnthropic", ("langchain-anthropic",)),
        ),
    ),
    ProbeFile(
        "llama_index_like.py",
        "llama-index",
        (Client("llama-index", "LlamaIndex OpenAILike", ("llama-index-llms-openai-like",)),),
    ),
    ProbeFile(
        "litellm_sdk.py",
        "sdks",
        (
            Client("litellm-openai", "LiteLLM openai/", ("litellm",)),
            Client("litellm-anthropic", "LiteLLM anthropic/", ("litellm",)),
            Client("litellm-responses", "LiteLLM responses()", ("litellm",)),
        ),
    ),
    ProbeFile(
        "frameworks.py",
        "frameworks",
        (
            Client("instructor", "instructor", ("instructor",)),
            Client("pydantic-ai-chat", "pydantic-ai, chat", ("pydantic-ai-slim",)),
            Client("pydantic-ai-responses", "pydantic-ai, Responses", ("pydantic-ai-slim",)),
            Client("pydantic-ai-anthropic", "pydantic-ai, Anthropic", ("pydantic-ai-slim",)),
            Client("openai-agents", "openai-agents (Responses)", ("openai-agents",)),
            Client("openai-agents-chat", "openai-agents, chat model", ("openai-agents",)),
        ),
    ),
)

PROGRAM_TITLES = {
    "curl": "curl",
    "vllm-bench-serve": "vllm bench serve",
    "guidellm": "guidellm",
    "aiperf": "AIPerf",
    "claude-code": "Claude Code",
    "codex": "Codex",
    "aider": "aider",
}
PROGRAM_PACKAGES = {
    "guidellm": ("guidellm",),
    "aiperf": ("aiperf",),
    "claude-code": ("@anthropic-ai/claude-code",),
    "codex": ("@openai/codex",),
    "aider": ("aider-chat",),
}


def clients() -> Iterator[Client]:
    """All clients that are libraries, in the order of the table."""
    for file in FILES:
        yield from file.clients
