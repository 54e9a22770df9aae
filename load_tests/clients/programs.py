"""Clients that are programs: load generators, curl and coding agents. Each is run once as its
documentation says, and judged by what it printed or wrote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests.clients.outcomes import FAILS, NOT_APPLICABLE, WORKS, Outcome
from load_tests.clients.server import Platform
from load_tests.servers.workload import TEACHER

REQUESTS = 8
LIMIT_S = 120.0
AGENT_LIMIT_S = 270.0
PROMPT = "What are your opening hours?"


@dataclass(frozen=True, slots=True)
class Command:
    """``argv`` with ``env`` added to a bare environment; run in a folder of its own."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program left: exit code (None: it was stopped), its output, its folder."""

    code: int | None
    output: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Program:
    """``environment``: where it is installed (None: it needs none of ours). ``judge`` returns what
    is wrong, or an empty text. ``long_context``: it needs a platform with room for its prompts."""

    key: str
    environment: str | None
    command: Callable[[Platform, Path, Path], Command]
    judge: Callable[[Ended], str]
    long_context: bool = False


def run_program(program: Program, platform: Platform, home: Path, folder: Path) -> Outcome:
    """Run it once. ``home``: the environment's folder; ``folder``: empty, for what it writes; its
    output is in ``output.txt`` there afterwards."""
    command = program.command(platform, home, folder)
    env = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    env |= {"HOME": str(folder), "TMPDIR": str(folder), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    probe = f"{program.key}/runs"
    if "/" in command.argv[0] and not Path(command.argv[0]).exists():
        return Outcome(probe, NOT_APPLICABLE, f"not installed: {Path(command.argv[0]).name}")
    ended = _run(command, env | dict(command.env), folder)
    (folder / "output.txt").write_text(ended.output, "utf-8")
    if ended.code is None:
        return Outcome(probe, FAILS, f"not done after {command.limit_s:.0f} s")
    wrong = program.judge(ended)
    return Outcome(probe, FAILS if wrong else WORKS, wrong[:300])


def _run(command: Command, env: Mapping[str, str], folder: Path) -> Ended:
    try:
        done = subprocess.run(
            list(command.argv),
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=command.limit_s,
        )
    except subprocess.TimeoutExpired as error:
        return Ended(None, (error.stdout or b"").decode("utf-8", "replace"), folder)
    return Ended(done.returncode, done.stdout.decode("utf-8", "replace"), folder)


def _curl(platform: Platform, home: Path, folder: Path) -> Command:
    body = {"model": platform.model, "max_tokens": 16, "stream": True}
    body["messages"] = [{"role": "user", "content": PROMPT}]
    argv = ["curl", "-sSN", "--max-time", "60", f"{platform.url}/v1/chat/completions"]
    argv += ["-H", f"Authorization: Bearer {platform.key}", "-d", json.dumps(body)]
    return Command([*argv, "-H", "Content-Type: application/json"])


def _curl_judge(ended: Ended) -> str:
    return "" if "data: [DONE]" in ended.output else first_error(ended)


def _vllm_bench(platform: Platform, home: Path, folder: Path) -> Command:
    vllm = str(Path(sys.executable).with_name("vllm"))
    argv = [vllm, "bench", "serve", "--backend", "openai-chat", "--base-url", platform.url]
    argv += ["--endpoint", "/v1/chat/completions", "--model", platform.model]
    argv += ["--tokenizer", str(TEACHER), "--dataset-name", "random", "--random-input-len", "32"]
    argv += ["--random-output-len", "16", "--num-prompts", str(REQUESTS)]
    argv += ["--max-concurrency", "2", "--save-result", "--result-filename", "result.json"]
    env = {"OPENAI_API_KEY": platform.key}
    # A checkout may keep the distribution called vllm elsewhere (requirements/vllm).
    env |= {k: os.environ[k] for k in ("PYTHONPATH",) if k in os.environ}
    return Command(argv, env)


def _vllm_judge(ended: Ended) -> str:
    found = _json(ended.folder / "result.json")
    if found is None:
        return first_error(ended)
    return "" if found.get("completed") == REQUESTS else f"{found.get('completed')} completed"


def _guidellm(platform: Platform, home: Path, folder: Path) -> Command:
    backend = f"kind=openai_http,target={platform.url},model={platform.model}"
    argv = [str(home / "bin/guidellm"), "run", "--disable-console"]
    argv += ["--backend", f"{backend},api_key={platform.key}"]
    argv += ["--profile", "kind=synchronous"]
    argv += ["--constraint", f"kind=max_requests,count={REQUESTS}"]
    argv += ["--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=16"]
    argv += ["--tokenizer", f"kind=hf_auto,model={TEACHER}"]
    return Command([*argv, "--output", "kind=json,path=result.json"])


def _guidellm_judge(ended: Ended) -> str:
    found = _json(ended.folder / "result.json")
    if found is None:
        return first_error(ended)
    totals = found["benchmarks"][0]["metrics"]["request_totals"]
    return "" if totals["successful"] >= REQUESTS else f"request_totals {totals}"


# AIPerf 0.13 takes a tokenizer's folder for the name of a repository and looks for that in the
# cache of the model hub; so the folder is laid into a cache of our own, under a name.
TOKENIZER_NAME = "weir/sample"


def _hub_cache(folder: Path) -> Path:
    """A hub's cache with the sample model's tokenizer in it."""
    cache = folder / "hub"
    entry = cache / f"models--{TOKENIZER_NAME.replace('/', '--')}"
    revision = "0" * 40
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text(revision, "ascii")
    (entry / "snapshots").mkdir()
    (entry / "snapshots" / revision).symlink_to(TEACHER)
    return cache


def _aiperf(platform: Platform, home: Path, folder: Path) -> Command:
    argv = [str(home / "bin/aiperf"), "profile", "--model", platform.model]
    argv += ["--url", platform.url, "--endpoint-type", "chat", "--streaming"]
    argv += ["--api-key", platform.key, "--tokenizer", TOKENIZER_NAME]
    argv += ["--concurrency", "2"]
    argv += ["--request-count", str(REQUESTS), "--isl", "32", "--osl", "16"]
    argv += ["--artifact-dir", "artifacts", "--ui", "none"]
    # Its processes talk by Unix sockets, whose paths must be short.
    return Command(argv, {"TMPDIR": "/tmp", "HF_HUB_CACHE": str(_hub_cache(folder))})


def _aiperf_judge(ended: Ended) -> str:
    found = _json(ended.folder / "artifacts" / "profile_export_aiperf.json")
    if found is None:
        return first_error(ended)
    count = found.get("request_count", {}).get("avg")
    return "" if count == REQUESTS else f"{count} of {REQUESTS} requests"


def _claude_code(platform: Platform, home: Path, folder: Path) -> Command:
    env = {
        "ANTHROPIC_BASE_URL": platform.url,
        "ANTHROPIC_AUTH_TOKEN": platform.key,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": platform.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": platform.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": platform.model,
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "64",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "PATH": _node_path(home),
    }
    argv = [str(home / "node_modules/.bin/claude"), "-p", PROMPT, "--model", platform.model]
    return Command([*argv, "--output-format", "json"], env, AGENT_LIMIT_S)


def _claude_judge(ended: Ended) -> str:
    found = _json_text(ended.output)
    if found is None or found.get("is_error"):
        return first_error(ended) if found is None else str(found.get("result"))
    return "" if found.get("usage", {}).get("output_tokens") else f"no tokens: {found}"


CODEX_CONFIG = """\
model = "{model}"
model_provider = "weir"
web_search = "disabled"

[features]
multi_agent = false

[model_providers.weir]
name = "weir"
base_url = "{url}/v1"
env_key = "WEIR_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def _codex(platform: Platform, home: Path, folder: Path) -> Command:
    text = CODEX_CONFIG.format(model=platform.model, url=platform.url)
    (folder / "config.toml").write_text(text, "utf-8")
    env = {"CODEX_HOME": str(folder), "WEIR_API_KEY": platform.key, "PATH": _node_path(home)}
    argv = [str(home / "node_modules/.bin/codex"), "exec", "--skip-git-repo-check", "--json"]
    return Command([*argv, "--sandbox", "read-only", PROMPT], env, AGENT_LIMIT_S)


def _codex_judge(ended: Ended) -> str:
    if "turn.completed" in ended.output:
        return ""
    failed = [line for line in ended.output.splitlines() if '"turn.failed"' in line]
    return failed[-1].strip() if failed else first_error(ended)


def _aider(platform: Platform, home: Path, folder: Path) -> Command:
    argv = [str(home / "bin/aider"), "--model", f"openai/{platform.model}", "--no-git"]
    argv += ["--openai-api-base", f"{platform.url}/v1", "--openai-api-key", platform.key]
    argv += ["--no-show-model-warnings", "--no-check-update", "--no-analytics", "--yes-always"]
    argv += ["--no-pretty", "--map-tokens", "0", "--message", PROMPT]
    return Command(argv, {"AIDER_CHAT_MODE": "ask"}, AGENT_LIMIT_S)


def _aider_judge(ended: Ended) -> str:
    sent = re.search(r"Tokens: \S+ sent, [1-9]\S* received", ended.output)
    return "" if sent else first_error(ended)


def _node_path(home: Path) -> str:
    return os.pathsep.join((str(home / "node_modules/.bin"), os.environ.get("PATH", "")))


def first_error(ended: Ended) -> str:
    """The line of the output that tells most: the first that speaks of an error, else the last."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    telling = [
        line
        for line in lines
        if re.search(r"\berror|refused|not found|status.{0,3}[45]\d\d", line, re.I)
    ]
    chosen = telling[0] if telling else (lines[-1] if lines else "no output")
    return f"exit code {ended.code}: {chosen}"


def _json(path: Path) -> dict[str, Any] | None:
    return _json_text(path.read_text("utf-8")) if path.is_file() else None


def _json_text(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


PROGRAMS = (
    Program("curl", None, _curl, _curl_judge),
    Program("vllm-bench-serve", None, _vllm_bench, _vllm_judge),
    Program("guidellm", "guidellm", _guidellm, _guidellm_judge),
    Program("aiperf", "aiperf", _aiperf, _aiperf_judge),
    Program("claude-code", "agents", _claude_code, _claude_judge, long_context=True),
    Program("codex", "agents", _codex, _codex_judge, long_context=True),
    Program("aider", "aider", _aider, _aider_judge, long_context=True),
)
