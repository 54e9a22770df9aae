"""Addresses of media that a replica fetches, or does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.gateway.prompts import PromptEncoder
from deployments.media import check_media
from deployments.testing import World
from deployments.testing.world import KEY, http_world
from weir.errors import BadRequestError
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.settings.media import OptionBound
from weir.tenancy import hash_key


def _asked(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "x"}, {"role": "user", "content": ["hi", part]}]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}},
        {"type": "image_url", "image_url": "https://example.org/a.png"},
        {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
        {"type": "audio_url", "audio_url": {"url": "HTTP://LOCALHOST:8265/"}},
        {"image_url": {"url": "//example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "http://good@example.org/a.png"}},
    ],
)
def test_nothing_is_fetched_unless_its_host_is_named(part: dict[str, Any]) -> None:
    for hosts in (None, [], ["good.example"]):
        with pytest.raises(BadRequestError) as refused:
            check_media(_asked(part), hosts)
        assert refused.value.param == "messages[1].content"


def test_media_in_the_request_and_of_named_hosts() -> None:
    for url in ("data:image/png;base64,AA", "https://good.example/a.png"):
        check_media(_asked({"type": "image_url", "image_url": {"url": url}}), ["good.example"])
    check_media(_asked({"type": "image_url", "image_url": {"url": "data:,"}}), None)
    check_media([{"role": "user", "content": "http://example.org/ is text"}], None)
    check_media(_asked({"type": "text", "text": "http://example.org/"}), None)


BOUNDS = {
    "mm_processor_kwargs.max_pixels": {"min": 3136, "max": 200_000},
    "mm_processor_kwargs.size.longest_edge": {"max": 512},
    "media_io_kwargs.video.num_frames": {"max": 16},
    "mm_processor_kwargs.do_pan_and_scan": {"one_of": [False]},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


@pytest.fixture
async def reading(encoder: PromptEncoder) -> AsyncIterator[World]:
    """A gateway of a model whose clients may set some options of media."""
    model = ModelSettings.model_validate(
        {"name": "m", "source": "x", "prompts": {"media_options": BOUNDS}}
    )
    tenant = TenantSettings(id="t", key_sha256=(hash_key(KEY),))
    async with http_world(Settings(models=(model,), tenants=(tenant,)), {"m": encoder}) as world:
        await world.add_replica("a")
        yield world


async def test_options_of_media_reach_the_replica_within_their_bounds(reading: World) -> None:
    given = {
        "mm_processor_kwargs": {
            "max_pixels": 3136,
            "size": {"longest_edge": 512},
            "do_pan_and_scan": False,
        },
        "media_io_kwargs": {"video": {"num_frames": 4}},
    }
    generator = reading.replicas[0].generator
    body = {"messages": [{"role": "user", "content": [IMAGE]}], "id": "r", **given}
    pending = asyncio.ensure_future(reading.post(body).__aenter__())
    async with asyncio.timeout(10):
        while not generator.started:  # noqa: ASYNC110 - the generator has no event
            await asyncio.sleep(0.005)
    (asked,) = generator.requests.values()
    assert {name: asked.messages[name] for name in given} == given
    generator.end(next(iter(generator.started)), "hi")
    response = await pending
    assert response.status == 200
    await response.read()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"mm_processor_kwargs": {"max_pixels": 200_001}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": 3135}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": True}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": [5000]}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"max_pixels": {"a": 1}}}, "mm_processor_kwargs.max_pixels.a"),
        ({"mm_processor_kwargs": {"size": {"x": 1}}}, "mm_processor_kwargs.size.x"),
        ({"mm_processor_kwargs": {"do_pan_and_scan": 0}}, "mm_processor_kwargs.do_pan_and_scan"),
        ({"media_io_kwargs": {"video": {"fps": 1}}}, "media_io_kwargs.video.fps"),
        ({"media_io_kwargs": {"max_pixels": 5000}}, "media_io_kwargs.max_pixels"),
    ],
)
@pytest.mark.parametrize("content", ["hello", [IMAGE]])
async def test_other_options_are_refused_by_name(
    reading: World, given: dict[str, Any], field: str, content: Any
) -> None:
    body = {"messages": [{"role": "user", "content": content}], **given}
    async with reading.post(body) as response:
        told = (await response.json())["error"]
    assert (response.status, told["param"]) == (400, field), told
    assert field in told["message"]


async def test_without_the_operators_word_there_is_no_option(world: World) -> None:
    await world.add_replica("a")
    body = {"messages": [{"role": "user", "content": [IMAGE]}]}
    async with world.post({**body, "mm_processor_kwargs": {"max_pixels": 1}}) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "bound", [{}, {"min": 2, "max": 1}, {"max": 1, "one_of": [1]}, {"one_of": []}, {"most": 1}]
)
def test_a_bound_that_is_none_is_refused(bound: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OptionBound.model_validate(bound)
