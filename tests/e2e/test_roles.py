"""Two mixed replicas that hand over, one of which changes its role under load: ``weir pools set``.

On a platform of its own, which has no student and no features, so that it comes up soon.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest

from weir.settings import load_settings

_STREAMS, _TOKENS = 4, 300


def _sections() -> dict[str, object]:
    model = load_settings("laptop").models[0].model_dump(mode="json")
    del model["replicas"]
    pool = {"name": "both", "role": "mixed", "replicas": 2, "changes_role": True}
    routing = {"disaggregation": {"rule": "always"}}
    changes = {"fallback": None, "pools": [pool], "routing": routing}
    return {"models": [{**model, **changes}], "features": {"enabled": False}}


@pytest.fixture(scope="module")
def platform(
    with_settings: Callable[[dict[str, object]], AbstractContextManager[Any]],
) -> Iterator[Any]:
    with with_settings(_sections()) as running:
        yield running


class _Stream:
    """One long answer; ``begun`` is set when some of it is there."""

    def __init__(self) -> None:
        self.text = ""
        self.begun = threading.Event()

    def read(self, platform: Any, number: int) -> str:
        asked = f"Number {number}: tell me everything about my order and its delivery."
        made = platform.client().chat.completions.create(
            model=platform.model,
            messages=[{"role": "user", "content": asked}],
            max_tokens=_TOKENS,
            temperature=0,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for chunk in made:
            self.text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            if len(self.text) > 40:
                self.begun.set()
        return self.text


def _answers(platform: Any, between: Callable[[], None]) -> list[str]:
    """All streams side by side; ``between`` is called when each of them has begun."""
    streams = [_Stream() for _ in range(_STREAMS)]
    with ThreadPoolExecutor(_STREAMS) as threads:
        reading = [
            threads.submit(stream.read, platform, number) for number, stream in enumerate(streams)
        ]
        for stream in streams:
            assert stream.begun.wait(120)
        between()
        return [read.result(180) for read in reading]


def _replicas(platform: Any) -> dict[str, str]:
    told = platform.weir("pools", "--json")
    assert told.returncode == 0, told.stderr
    pools = json.loads(told.stdout)
    return {r["replica_id"]: r["role"] for pool in pools for r in pool["replicas"]}


def _await_role(platform: Any, replica: str, role: str) -> None:
    """It has the role. On a busy machine it may not be reached for a moment, and is not told."""
    patience_s = time.monotonic() + 20
    while (found := _replicas(platform)).get(replica) != role:
        assert time.monotonic() < patience_s, found


def _asked(platform: Any) -> Mapping[str, str]:
    """A short answer's headers."""
    time.sleep(0.3)
    with platform.http() as http:
        body = {"model": platform.model, "messages": [{"role": "user", "content": "Hello again!"}]}
        answer = http.post("/v1/chat/completions", json={**body, "max_tokens": 8})
    assert answer.status_code == 200
    return dict(answer.headers)


def test_streams_survive_that_a_replica_only_computes_prompts_from_now_on(platform: Any) -> None:
    expected = _answers(platform, lambda: None)
    assert all(expected)
    roles = _replicas(platform)
    assert sorted(roles.values()) == ["mixed", "mixed"]
    changed = max(roles)

    def change() -> None:
        told = platform.weir("pools", "set", f"{platform.model}:both", changed, "prefill")
        assert told.returncode == 0, told.stderr

    assert _answers(platform, change) == expected
    _await_role(platform, changed, "prefill")
    # Whoever comes now has the prompt computed there, and the answer by the other one; not if the
    # replica has just been silent because the machine is busy.
    answers = [_asked(platform) for _ in range(5)]
    split = [each for each in answers if "x-weir-prefill-replica" in each]
    assert split
    assert {each["x-weir-prefill-replica"] for each in split} == {changed}
    assert changed not in {each["x-weir-replica"] for each in answers}
    refused = platform.weir("pools", "set", f"{platform.model}:both", "--count", "2", "prefill")
    assert refused.returncode != 0
    assert "last" in refused.stderr
