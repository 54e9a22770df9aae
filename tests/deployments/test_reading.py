"""Where the work on large requests is done, and what is refused before it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.gateway.conversation import Conversation
from deployments.gateway.encoding import Encoding
from deployments.gateway.off_loop import OffLoop
from deployments.gateway.prompts import PromptEncoder
from deployments.testing.in_memory import memory_cluster
from deployments.testing.words import word_encoder
from weir.errors import BadRequestError, ContextLengthError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key
from weir.testing import virtual_time


class _Spy(OffLoop):
    """Notes sizes; runs everything at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    async def run(self, tenant: str, size: int, function: Callable[[], Any]) -> Any:
        self.sizes.append(size)
        return function()


def _teacher(repo_root: Path) -> PromptEncoder:
    return PromptEncoder(repo_root / "platform" / "weir" / "artifacts" / "teacher")


def _conversation(text: str, **more: Any) -> Conversation:
    return Conversation([{"role": "user", "content": text, **more}])


async def test_what_is_far_too_long_is_refused_before_it_is_rendered(
    repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, spy = _teacher(repo_root), _Spy()
    monkeypatch.setattr(encoder, "render_chat", lambda conversation: pytest.fail("rendered"))
    encoding = Encoding(encoder, spy, context=2048, tenant="t", body_bytes=4_000_000)
    with pytest.raises(ContextLengthError) as refused:
        await encoding.chat(lambda: _conversation("where is it " * 300_000))
    assert refused.value.param == "messages"
    assert spy.sizes == [4_000_000]


async def test_what_a_template_may_leave_out_does_not_count(repo_root: Path) -> None:
    encoder = _teacher(repo_root)
    conversation = _conversation("hello", reasoning="x" * 1_000_000)
    encoder.check_unseen(conversation, 2048)


async def test_many_short_prompts_are_one_long_piece_of_work(repo_root: Path) -> None:
    encoder, spy = _teacher(repo_root), _Spy()
    encoding = Encoding(encoder, spy, context=2048, tenant="t", body_bytes=0)
    made = await encoding.prompts(["Where is my order?"] * 300, "prompt", True)
    assert len(made) == 300
    assert spy.sizes == [300 * len("Where is my order?")]
    with pytest.raises(BadRequestError, match=r"prompt\[1\]\[0\]"):
        await encoding.prompts([[1], [10**9]], "prompt", True)


def test_large_bodies_are_read_and_hashed_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.testing.cluster.CONTEXT_TOKENS", 100_000)
    encoder = word_encoder(tmp_path)

    async def main() -> None:
        tenant = TenantSettings(id="one", key_sha256=(hash_key("one"),))
        settings = Settings(models=(ModelSettings(name="m", source="x"),), tenants=(tenant,))
        async with memory_cluster(settings, encoder) as cluster:
            host = await cluster.add("a")
            asked: list[int] = []
            run = cluster.gateway.parts.off_loop.run

            async def spy(tenant: str, size: int, function: Callable[[], Any]) -> Any:
                asked.append(size)
                return await run(tenant, size, function)

            cluster.gateway.parts.off_loop.run = spy  # type: ignore[method-assign]
            for tokens, calls in ((10, 0), (9_000, 3)):
                asked.clear()
                body = {"model": "m", "prompt": [1] * tokens, "max_tokens": 1}
                told = await cluster.ask("/v1/completions", body, "one").done()
                assert told.status == 200, told.raw
                assert len([size for size in asked if size > 4096]) == calls, asked
            assert len(host.meter.streams) == 2

    virtual_time.run(main())
