"""Pools of a model: what may be written, what it means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from weir.cli.apply import _scaled
from weir.cli.exits import CommandError
from weir.settings import Settings, SettingsError, parse_settings

PREFILL = {"name": "p", "role": "prefill"}
DECODE = {"name": "d", "role": "decode"}


def parse(*pools: dict[str, Any], **model: Any) -> Settings:
    tree = {"name": "m", "source": "x", "pools": list(pools), **model}
    return parse_settings({"models": [tree]}, "test")


def refusal(*pools: dict[str, Any], **model: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        parse(*pools, **model)
    return str(refused.value)


def test_a_model_has_no_pools_of_its_own_accord() -> None:
    settings = parse_settings({"models": [{"name": "m", "source": "x"}]}, "test")
    assert settings.models[0].pools == ()


def test_a_pool_is_the_model_with_what_it_says_itself() -> None:
    engine = {"mode": "process", "args": {"max_num_seqs": 8, "block_size": 32}, "env": {"A": "1"}}
    own = {
        "accelerator": "H100",
        "replicas": 3,
        "parallel": {"tensor": 2},
        "engine": {"args": {"max_num_seqs": 64}, "env": {"B": "2"}},
        "price": {"replica_usd_per_hour": 7},
    }
    price = {"replica_usd_per_hour": 2, "input_usd_per_million_tokens": 5}
    model = parse({**PREFILL, **own}, DECODE, engine=engine, price=price, num_cpus=2).models[0]
    prefill, decode = (model.of_pool(pool) for pool in model.pools)
    assert prefill.engine.args == {"max_num_seqs": 64, "block_size": 32}
    assert prefill.engine.env == {"A": "1", "B": "2"}
    assert (prefill.replicas, prefill.parallel.tensor, prefill.num_cpus) == (3, 2, 2)
    assert prefill.price.replica_usd_per_hour == 7
    assert prefill.price.input_usd_per_million_tokens == 5
    assert (prefill.name, prefill.accelerator, prefill.pools) == ("m", "H100", ())
    assert (decode.engine, decode.accelerator, decode.replicas) == (model.engine, None, 1)
    assert decode.price == model.price


@pytest.mark.parametrize(
    ("pools", "model", "told"),
    [
        ((PREFILL,), {}, "generate no answers"),
        ((DECODE,), {}, "nobody computes prompts"),
        ((PREFILL, {**DECODE, "name": "p"}), {}, "'p' is defined twice"),
        ((PREFILL, DECODE), {"replicas": 3}, "replicas and autoscaling of its own"),
        ((PREFILL, DECODE), {"autoscaling": {}}, "replicas and autoscaling of its own"),
        (({**PREFILL, "role": "student"}, DECODE), {}, "pools[0].role"),
        (({**PREFILL, "market": "free"}, DECODE), {}, "pools[0].market"),
        (({**PREFILL, "name": "a b"}, DECODE), {}, "pools[0].name"),
        (({**PREFILL, "colour": 1}, DECODE), {}, "unknown key"),
        (({**PREFILL, "engine": {"args": {"block_size": 8}}}, DECODE), {}, "same in all pools"),
        (({**PREFILL, "engine": {"args": {"model": "y"}}}, DECODE), {}, "models[].source"),
        (({**PREFILL, "parallel": {"pipeline": 2}}, DECODE), {}, "no pipeline parallelism"),
    ],
)
def test_what_makes_no_model_is_refused(
    pools: tuple[dict[str, Any], ...], model: dict[str, Any], told: str
) -> None:
    assert told in refusal(*pools, **model)


def test_pairs_of_mixed_replicas_need_a_pool() -> None:
    routing = {"disaggregation": {"params": {"pairs_of_mixed": True}}}
    assert "one pool of role mixed" in refusal(routing=routing)
    assert parse({"name": "all"}, routing=routing).models[0].pools


@pytest.mark.parametrize(
    ("parallel", "more", "told"),
    [
        ({"tensor": 2}, {"engine": {"mode": "forked"}}, "engine.mode: process"),
        ({"pipeline": 2}, {}, "no pipeline parallelism"),
        ({"data": 2}, {}, "needs an accelerator"),
        ({"experts": True}, {"accelerator": "H100"}, "raise parallel.data"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    parallel: dict[str, Any], more: dict[str, Any], told: str
) -> None:
    assert told in refusal(parallel=parallel, **more)


def test_pools_are_scaled_by_their_name() -> None:
    settings = parse(PREFILL, DECODE)
    scaled = _scaled(settings, {"m:d": 4})
    assert [pool.replicas for pool in scaled.models[0].pools] == [1, 4]
    assert scaled.models[0].replicas == 1
    with pytest.raises(CommandError, match="known: m:p, m:d"):
        _scaled(settings, {"m": 4})
