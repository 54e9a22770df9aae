"""Rerank and score over HTTP, of models of both kinds."""

from __future__ import annotations

from typing import Any

import pytest

from deployments.gateway.dialects.base import Registry
from deployments.gateway.dialects.ranking import RerankDialect, ScoreDialect
from deployments.gateway.prompts import PromptEncoder
from deployments.stub_generator import StubGenerator
from deployments.testing import World
from deployments.testing.world import KEY, http_world
from weir.settings import ModelSettings, Settings, TenantSettings
from weir.tenancy import hash_key

EMBEDS, SCORES = frozenset({"embed"}), frozenset({"classify", "score"})
BOTH = pytest.mark.parametrize("tasks", [EMBEDS, SCORES], ids=["embeddings", "pairs"])
DOCUMENTS = ["hello world", "hello", "world world"]


async def post(world: World, path: str, **body: Any) -> tuple[int, Any]:
    async with world.post(body, path) as response:
        return response.status, await response.json()


async def ranked(world: World, **body: Any) -> list[dict[str, Any]]:
    asked = {"query": "hello", "documents": DOCUMENTS, **body}
    status, told = await post(world, "/v1/rerank", **asked)
    assert status == 200, told
    return list(told["results"])


@BOTH
async def test_the_best_come_first_and_only_as_many_as_asked_for(
    world: World, tasks: frozenset[str]
) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=tasks)
    results = await ranked(world)
    assert {each["index"] for each in results} == {0, 1, 2}
    scores = [each["relevance_score"] for each in results]
    assert scores == sorted(scores, reverse=True)
    assert all(each["document"] == {"text": DOCUMENTS[each["index"]]} for each in results)
    assert await ranked(world, top_n=2) == results[:2]
    assert await ranked(world, top_n=99) == results
    bare = await ranked(world, return_documents=False)
    assert [each.keys() for each in bare] == [{"index", "relevance_score"}] * 3


async def test_a_text_is_as_near_as_can_be_to_itself(world: World) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=EMBEDS)
    best = (await ranked(world))[0]
    assert best["index"] == 1
    assert best["relevance_score"] == pytest.approx(1.0)


@BOTH
@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank", "/v1/rerank/"])
async def test_documents_may_be_objects_and_paths_differ(
    world: World, tasks: frozenset[str], path: str
) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=tasks)
    objects = [{"text": text} for text in DOCUMENTS]
    status, told = await post(world, path, query="hello", documents=objects)
    assert status == 200
    assert told["results"] == await ranked(world)
    assert told["id"] == "rerank-r1"


@BOTH
async def test_scores_of_one_against_several_and_of_as_many(
    world: World, tasks: frozenset[str]
) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=tasks)
    _, one = await post(world, "/score", text_1="hello", text_2=DOCUMENTS)
    assert [each["index"] for each in one["data"]] == [0, 1, 2]
    assert {each["object"] for each in one["data"]} == {"score"}
    by_index = sorted(await ranked(world), key=lambda each: int(each["index"]))
    assert [each["score"] for each in one["data"]] == pytest.approx(
        [each["relevance_score"] for each in by_index]
    )
    _, many = await post(world, "/v1/score", queries=["hello"] * 3, items=DOCUMENTS)
    assert [each["score"] for each in many["data"]] == pytest.approx(
        [each["score"] for each in one["data"]]
    )
    # As many first texts as second ones, each read once where texts are embedded.
    longer = 2 if tasks is EMBEDS else 0
    told = many["usage"]["prompt_tokens"] - one["usage"]["prompt_tokens"]
    assert told == longer


async def test_texts_are_cut(world: World) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=SCORES, max_model_len=8)
    asked = {"text_1": "hello", "text_2": "world " * 20}
    status, told = await post(world, "/v1/score", **asked)
    assert (status, told["error"]["code"]) == (400, "context_length_exceeded")
    for more, tokens in (
        ({"truncate_prompt_tokens": -1}, 8),
        ({"truncate_prompt_tokens": 5}, 5),
        ({"max_tokens_per_doc": 2}, 3),
    ):
        status, told = await post(world, "/v1/score", **asked, **more)
        assert status == 200, told
        assert told["usage"]["prompt_tokens"] == tokens


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "hello", "documents": []}, "documents"),
        ("/v1/rerank", {"documents": ["hello"]}, "query"),
        ("/v1/rerank", {"query": "hello", "documents": [{"image": "x"}]}, "documents[0]"),
        ("/v1/rerank", {"query": "hello", "documents": ["a"], "top_n": -1}, "top_n"),
        ("/v1/rerank", {"query": "h", "documents": ["a"], "instruction": "x"}, "instruction"),
        (
            "/v1/rerank",
            {"query": "h", "documents": ["a"], "truncate_prompt_tokens": 0},
            "truncate_prompt_tokens",
        ),
        ("/v1/score", {"text_1": "hello"}, None),
        ("/v1/score", {"text_1": "hello", "documents": ["a"]}, None),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, "text_1"),
    ],
)
async def test_a_wrong_body_names_what_is_wrong(
    world: World, path: str, body: dict[str, Any], param: str | None
) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=EMBEDS)
    status, told = await post(world, path, **body)
    assert (status, told["error"]["param"]) == (400, param), told


@pytest.mark.parametrize("tasks", [{"generate"}, {"classify"}])
async def test_a_model_that_cannot_says_so(world: World, tasks: set[str]) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=frozenset(tasks))
    status, told = await post(world, "/v1/rerank", query="hello", documents=DOCUMENTS)
    assert (status, told["error"]["code"]) == (400, "unsupported_operation")
    assert "does not support rerank" in told["error"]["message"]


async def test_embeddings_take_two_thousand_inputs(encoder: PromptEncoder) -> None:
    settings = Settings(
        models=(ModelSettings(name="m", source="x"),),
        tenants=(TenantSettings(id="t", key_sha256=(hash_key(KEY),)),),
    )
    async with http_world(settings, {"m": encoder}) as world:
        await world.add_replica("a", StubGenerator(0.0), tasks=EMBEDS)
        texts: list[Any] = ["hello world"] * 2048
        status, told = await post(world, "/v1/embeddings", input=texts)
        assert status == 200, told
        assert len(told["data"]) == 2048
        assert told["usage"]["prompt_tokens"] == 4096


async def test_embeddings_inputs_are_cut(world: World) -> None:
    await world.add_replica("a", StubGenerator(0.0), tasks=EMBEDS)
    status, told = await post(
        world, "/v1/embeddings", input=["hello world"], truncate_prompt_tokens=1
    )
    assert (status, told["usage"]["prompt_tokens"]) == (200, 1)
    status, told = await post(
        world, "/v1/embeddings", input=[[5, 6, 6], [6]], truncate_prompt_tokens=2, dimensions=3
    )
    assert told["usage"]["prompt_tokens"] == 3
    assert [len(each["embedding"]) for each in told["data"]] == [3, 3]


def test_a_path_is_taken_once() -> None:
    registry = Registry()
    registry.register(RerankDialect(), "/rerank")
    with pytest.raises(ValueError, match="/rerank is registered"):
        registry.register(ScoreDialect(), "/rerank")
    assert [dialect.name for dialect in registry] == ["rerank"]
