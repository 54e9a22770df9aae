"""Tenants and keys of a running platform: in force at once, and nothing is disturbed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from load_tests.frontdoor.parts import GATEWAY, Parts
from weir.run_folder import run_folder
from weir.tenancy import hash_key

pytestmark = pytest.mark.e2e
_LIMIT_S = 30.0
CANARY = "Zeisig4711"


def _tenant(platform: Any, name: str, *fields: str) -> tuple[str, str]:
    """A new tenant's key, and the key's id."""
    given = [part for each in fields for part in ("--set", each)]
    made = platform.weir("tenants", "create", name, *given)
    assert made.returncode == 0, made.stderr
    key = platform.weir("keys", "create", name, "--json")
    assert key.returncode == 0, key.stderr
    told = json.loads(key.stdout)
    return told["key"], told["id"]


def _in_force(platform: Any, key: str, status: int = 200) -> None:
    """Wait until a gateway answers the key so."""
    headers = {"authorization": f"Bearer {key}"}
    deadline_s = time.monotonic() + _LIMIT_S
    while httpx.get(f"{platform.url}/v1/models", headers=headers).status_code != status:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _client(platform: Any, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{platform.url}/v1", api_key=key, max_retries=0, timeout=60)


def _gateways(platform: Any) -> list[int]:
    """The gateways' processes."""
    return sorted(process.pid for process in Parts(platform.home).titled(GATEWAY))


class Streams:
    """Streams of a tenant that go on from now until :meth:`end`."""

    def __init__(self, platform: Any, count: int) -> None:
        self.answers: list[str] = []
        self.broken: list[str] = []
        self._stopped = threading.Event()
        work = (platform.client(), platform.model)
        self._threads = [threading.Thread(target=self._run, args=work) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, client: openai.OpenAI, model: str) -> None:
        while not self._stopped.is_set():
            try:
                stream = client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "What are your opening hours?"}],
                    max_tokens=48,
                    temperature=0,
                    stream=True,
                )
                chunks = list(stream)
            except openai.OpenAIError as error:
                self.broken.append(repr(error))
                return
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            if chunks[-1].choices[0].finish_reason is None:
                self.broken.append(text)
            self.answers.append(text)

    def end(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def test_changes_are_in_force_and_disturb_nobody(platform: Any) -> None:
    before = _gateways(platform)
    assert before, "the gateways are found by their processes' titles"
    streams = Streams(platform, 4)
    try:
        refused = []
        for number in range(5):
            key, key_id = _tenant(platform, f"quick-{number}", "weight=2")
            _in_force(platform, key)
            client = _client(platform, key)
            answer = client.chat.completions.create(
                model=platform.model, messages=[{"role": "user", "content": "hi"}], max_tokens=4
            )
            assert answer.choices[0].message.content is not None
            assert platform.weir("keys", "revoke", key_id).returncode == 0
            _in_force(platform, key, 401)
            with pytest.raises(openai.AuthenticationError) as error:
                client.models.list()
            refused.append(error.value.code)
            client.close()
        assert refused == ["invalid_api_key"] * 5
    finally:
        streams.end()
    assert streams.broken == []
    assert len(set(streams.answers)) == 1, "each is whole, and says the same"
    assert len(streams.answers) >= 8
    assert _gateways(platform) == before, "nothing was restarted"


def test_other_tenants_in_the_settings_restart_nothing(platform: Any, tmp_path: Path) -> None:
    before = _gateways(platform)
    running = yaml.safe_load((platform.home / "settings.yaml").read_text())["tenants"]
    config = tmp_path / "tenants.yaml"
    try:
        added = {"id": "added", "key_sha256": [hash_key("weir_added")]}
        config.write_text(yaml.safe_dump({"tenants": [*running, added]}))
        applied = platform.weir("apply", "--config", str(config))
        assert applied.returncode == 0, applied.stderr
        _in_force(platform, "weir_added")
    finally:
        config.write_text(yaml.safe_dump({"tenants": running}))
        assert platform.weir("apply", "--config", str(config)).returncode == 0
    _in_force(platform, "weir_added", 401)
    assert _gateways(platform) == before


def test_the_last_use_of_a_key_is_noted(platform: Any) -> None:
    key, key_id = _tenant(platform, "used")
    _in_force(platform, key)
    _client(platform, key).models.list()
    deadline_s = time.monotonic() + 60
    used = None
    while used is None and time.monotonic() < deadline_s:
        time.sleep(1)
        listed = json.loads(platform.weir("keys", "list", "used", "--json").stdout)
        used = next(each for each in listed if each["id"] == key_id)["last_used_s"]
    assert used is not None


def test_prompts_and_answers_are_in_no_file(platform: Any) -> None:
    """Neither in logs (weir's, Ray's, vLLM's, HAProxy's) nor in Redis nor in the database, for a
    tenant that keeps nothing; whatever it asks, and whatever is wrong with that."""
    key, _ = _tenant(platform, "private")
    _in_force(platform, key)
    headers = {"authorization": f"Bearer {key}"}
    said = [{"role": "user", "content": f"My name is {CANARY}. What are your opening hours?"}]
    model = {"model": platform.model}
    asked: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/chat/completions", {"messages": said, "max_tokens": 16}, 200),
        ("/v1/chat/completions", {"messages": said, "max_tokens": 16, "stream": True}, 200),
        ("/v1/chat/completions", {"messages": said, "n": 3, "max_tokens": 8}, 200),
        ("/v1/chat/completions", {"messages": said, "logprobs": True, "max_tokens": 8}, 200),
        ("/v1/completions", {"prompt": CANARY, "max_tokens": 8, "echo": True}, 200),
        ("/v1/completions", {"prompt": [CANARY, CANARY * 2], "max_tokens": 8}, 200),
        ("/v1/responses", {"input": f"I am {CANARY}", "max_output_tokens": 8}, 200),
        ("/v1/responses", {"input": CANARY, "max_output_tokens": 8, "stream": True}, 200),
        ("/v1/messages", {"messages": said, "max_tokens": 8}, 200),
        ("/v1/messages/count_tokens", {"messages": said}, 200),
        ("/tokenize", {"prompt": CANARY}, 200),
        ("/v1/embeddings", {"input": CANARY}, 400),
        ("/v1/chat/completions", {"messages": said, "temperature": CANARY}, 400),
        ("/v1/chat/completions", {"messages": [{"role": CANARY, "content": CANARY}]}, 400),
        ("/v1/chat/completions", {"messages": said, "model": CANARY}, 404),
        ("/v1/chat/completions", {"messages": said, CANARY: 1, "max_tokens": 4}, 200),
        ("/v1/completions", {"prompt": CANARY * 5000, "max_tokens": 8}, 400),
    ]
    with httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client:
        for path, body, status in asked:
            answer = client.post(path, json={**model, **body})
            assert answer.status_code == status, (path, body, answer.text)
        with client.stream(
            "POST", "/v1/chat/completions", json={**model, "messages": said, "stream": True}
        ) as stream:
            next(stream.iter_lines())  # and the client leaves
        assert client.post("/v1/completions", content=CANARY.encode()).status_code in (400, 415)
    time.sleep(2)
    assert _files_with(platform, CANARY.encode()) == []


def test_what_is_kept_on_purpose_is_found_and_forgotten(platform: Any) -> None:
    """The other way round: the search above sees what is kept."""
    word = "Pirol4712"
    key, _ = _tenant(platform, "keeping", "retention_days=1")
    _in_force(platform, key)
    client = _client(platform, key)
    made = client.responses.create(model=platform.model, input=word, max_output_tokens=4)
    assert client.responses.retrieve(made.id).id == made.id
    assert any("redis" in place for place in _files_with(platform, word.encode()))
    headers = {"authorization": f"Bearer {key}"}
    told = httpx.delete(f"{platform.url}/v1/responses", headers=headers)
    assert told.json()["deleted"] == 1
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    client.close()


def _files_with(platform: Any, text: bytes) -> list[str]:
    """Files of the platform's folders that hold the text."""
    found = []
    for folder in {platform.home, run_folder(platform.home)}:
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink() and text in file.read_bytes():
                found.append(str(file))
    return sorted(found)
