"""Look-ups against a store that answers, hangs, refuses, goes away or talks nonsense."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
import uvloop

from features.online import (
    CacheSettings,
    FeatureReader,
    FeatureRow,
    Patience,
    StoreAddress,
    StoreLink,
)
from features.online.format import hash_key
from features.testing import EAGER, LONG_S, PLAN, FakeRedis, Times, until

HANGING = Patience(
    failures=3, silence_s=0.0, backoff_min_s=30.0, backoff_max_s=30.0, probe_timeout_s=5.0
)


async def read(reader: FeatureReader, entity: str, budget_s: float = LONG_S) -> FeatureRow:
    return await reader.begin(PLAN, hash_key(entity), budget_s).row()


async def test_a_row_is_read(redis: FakeRedis, reader: FeatureReader) -> None:
    redis.put("t/1", "Ada")
    row = await read(reader, "t/1")
    assert (row.outcome, row.values, row.written_s) == ("hit", {"name": "Ada"}, 1.0)
    assert (await read(reader, "t/2")).outcome == "missing"


async def test_look_ups_of_one_turn_leave_together(
    redis: FakeRedis, link: StoreLink, reader: FeatureReader
) -> None:
    before = link.batches
    lookups = [reader.begin(PLAN, hash_key(f"t/{n}"), LONG_S) for n in range(50)]
    rows = [await lookup.row() for lookup in lookups]
    assert {row.outcome for row in rows} == {"missing"}
    assert (redis.reads, link.batches - before) == (50, 1)


async def test_the_same_entity_is_asked_for_once(redis: FakeRedis, reader: FeatureReader) -> None:
    redis.put("t/1", "Ada")
    rows = await asyncio.gather(*(read(reader, "t/1") for _ in range(20)))
    assert {row.values["name"] for row in rows} == {"Ada"}
    assert (redis.reads, reader.counts.store, reader.counts.shared) == (1, 1, 19)
    assert reader.under_way == 0


async def test_the_cache_answers_until_its_time_is_over(redis: FakeRedis, link: StoreLink) -> None:
    clock = Times()
    reader = FeatureReader(link, CacheSettings(10, ttl_s=2.0, negative_ttl_s=1.0), clock)
    redis.put("t/1", "Ada")
    assert (await read(reader, "t/1")).outcome == "hit"
    assert (await read(reader, "t/2")).outcome == "missing"
    redis.put("t/1", "Bea")
    redis.put("t/2", "Cy")
    clock.now_s += 0.9
    assert (await read(reader, "t/1")).values["name"] == "Ada"
    assert (await read(reader, "t/2")).outcome == "missing"
    clock.now_s += 0.2
    assert (await read(reader, "t/2")).values["name"] == "Cy"
    assert (await read(reader, "t/1")).values["name"] == "Ada"
    clock.now_s += 1.0
    assert (await read(reader, "t/1")).values["name"] == "Bea"
    assert redis.reads == 4


async def test_a_store_that_hangs_costs_the_budget_and_no_more(
    redis: FakeRedis, reader: FeatureReader
) -> None:
    redis.answer = lambda: None
    row = await read(reader, "t/1", budget_s=0.01)
    assert (row.outcome, row.values["name"], row.reasons) == (
        "timeout",
        "nobody",
        {"name": "timeout"},
    )


async def test_a_late_answer_still_fills_the_cache(redis: FakeRedis, link: StoreLink) -> None:
    reader = FeatureReader(link, CacheSettings())
    redis.put("t/1", "Ada")
    arrived = asyncio.Event()
    redis.answer = lambda: arrived.set()
    row = await read(reader, "t/1", budget_s=0.005)
    assert row.outcome == "timeout"
    await arrived.wait()
    redis.writers[-1].write(b"*2\r\n$2\r\n\x08\x01\r\n$5\r\n\x12\x03Ada\r\n")
    await until(lambda: not reader.under_way)
    lookup = reader.begin(PLAN, hash_key("t/1"), LONG_S)
    assert (lookup.source, lookup.done) == ("cache", True)
    assert (await lookup.row()).values["name"] == "Ada"


async def test_after_a_few_timeouts_nobody_waits_any_more(redis: FakeRedis) -> None:
    states: list[str] = []
    address = StoreAddress.parse(redis.url)
    link = StoreLink(address, HANGING, random.Random(1), states.append)
    link.start()
    await link.wait_until_up()
    reader = FeatureReader(link, CacheSettings(0, 0, 0))
    redis.answer = lambda: None
    outcomes = [(await read(reader, f"t/{n}", 0.005)).outcome for n in range(3)]
    assert outcomes == ["timeout"] * 3
    await until(lambda: link.state == "down")
    for n in range(100):
        lookup = reader.begin(PLAN, hash_key(f"t/{n}"), LONG_S)
        assert lookup.done
        assert (await lookup.row()).outcome == "down"
    assert redis.reads == 3
    assert states == ["up", "down"]
    await link.close()


async def test_a_moment_of_silence_is_no_failure(redis: FakeRedis) -> None:
    clock = Times()
    patience = Patience(failures=3, silence_s=1.0, backoff_min_s=30.0, probe_timeout_s=5.0)
    link = StoreLink(StoreAddress.parse(redis.url), patience, clock=clock)
    link.start()
    await link.wait_until_up()
    for _ in range(5):
        link.unanswered()
    clock.now_s += 0.9
    link.unanswered()
    assert not link.broken
    link.answered()
    clock.now_s += 5.0
    link.unanswered()
    link.unanswered()
    clock.now_s += 1.0
    assert not link.broken
    link.unanswered()
    assert link.broken
    await link.close()


async def test_a_store_that_comes_back_is_used_again(
    redis: FakeRedis, link: StoreLink, reader: FeatureReader
) -> None:
    redis.put("t/1", "Ada")
    await redis.stop()
    await until(lambda: link.state == "down")
    assert reader.begin(PLAN, hash_key("t/1"), LONG_S).done
    await redis.start()
    await link.wait_until_up()
    assert (await read(reader, "t/1")).outcome == "hit"


async def test_a_store_that_goes_away_answers_who_waits(
    redis: FakeRedis, reader: FeatureReader
) -> None:
    def hang_up() -> None:
        redis.writers[-1].transport.abort()

    redis.answer = hang_up
    assert (await read(reader, "t/1")).outcome == "down"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\xff\x00\xff",
        b"*1\r\n$1\r\nx\r\n",  # another length than was asked for
        b":42\r\n",
        b"$2\r\nhi\r\n",
        b"+OK\r\n",
        b"*2\r\n$-1\r\n$-1\r\n*2\r\n$-1\r\n$-1\r\n",  # two replies to one command
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-NOPERM this user has no permissions\r\n",
    ],
)
async def test_nonsense_is_survived(
    redis: FakeRedis, link: StoreLink, reader: FeatureReader, nonsense: bytes
) -> None:
    redis.put("t/1", "Ada")
    redis.answer = lambda: nonsense
    first = await read(reader, "t/1")
    assert first.outcome in ("down", "missing")  # the first of two replies may be a good one
    await until(lambda: link.breaks)
    redis.answer = None
    await link.wait_until_up()
    assert (await read(reader, "t/1")).values["name"] == "Ada"


async def test_a_reply_never_reaches_another_entity(
    redis: FakeRedis, link: StoreLink, reader: FeatureReader
) -> None:
    """After one reply too many the rest of the connection is not believed."""
    redis.put("a/1", "Ada")
    redis.put("b/1", "Bea")
    good = b"*2\r\n$2\r\n\x08\x01\r\n$5\r\n\x12\x03Ada\r\n"
    redis.answer = lambda: good + good
    await read(reader, "a/1")
    redis.answer = None
    await until(lambda: link.breaks)
    await link.wait_until_up()
    assert (await read(reader, "b/1")).values["name"] == "Bea"


async def test_a_key_that_is_no_hash_is_of_the_wrong_type(
    redis: FakeRedis, link: StoreLink, reader: FeatureReader
) -> None:
    redis.answer = lambda: b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"
    row = await read(reader, "t/1")
    assert (row.outcome, row.reasons) == ("partial", {"name": "wrong_type"})
    assert link.state == "up"


async def test_nobody_there_is_told_at_once() -> None:
    link = StoreLink(StoreAddress("127.0.0.1", 9), EAGER)  # discard: nothing listens there
    link.start()
    reader = FeatureReader(link)
    assert reader.begin(PLAN, hash_key("t/1"), LONG_S).done
    await until(lambda: link.state == "down")
    lookup = reader.begin(PLAN, hash_key("t/1"), LONG_S)
    assert (lookup.done, lookup.source) == (True, "none")
    await link.close()


async def test_who_leaves_does_not_take_the_others_along(
    redis: FakeRedis, reader: FeatureReader
) -> None:
    redis.put("t/1", "Ada")
    tasks = [asyncio.create_task(read(reader, "t/1")) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert (await tasks[1]).values["name"] == (await tasks[2]).values["name"] == "Ada"
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    assert reader.under_way == 0


async def test_who_leaves_is_no_failure_of_the_store(redis: FakeRedis, link: StoreLink) -> None:
    reader = FeatureReader(link, CacheSettings(0, 0, 0))
    redis.answer = lambda: None
    for n in range(10):
        task = asyncio.create_task(read(reader, f"t/{n}", 0.005))
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0.05)
    assert (link.state, link.breaks) == ("up", 0)


@pytest.mark.parametrize("turns", range(12))
async def test_a_link_can_be_closed_at_any_moment(redis: FakeRedis, turns: int) -> None:
    link = StoreLink(StoreAddress.parse(f"redis://:secret@127.0.0.1:{redis.port}/3"), EAGER)
    link.start()
    for _ in range(turns):
        await asyncio.sleep(0)
    await link.close()
    reader = FeatureReader(link)
    assert (await read(reader, "t/1")).outcome == "down"


async def test_the_greeting_names_user_and_database(redis: FakeRedis) -> None:
    address = StoreAddress.parse(f"redis://me:secret@127.0.0.1:{redis.port}/3")
    assert address.greeting() == [(b"AUTH", b"me", b"secret"), (b"SELECT", b"3")]
    link = StoreLink(address, EAGER)
    link.start()
    await link.wait_until_up()
    assert redis.commands == [b"AUTH", b"SELECT", b"PING"]
    await link.close()


async def test_the_store_is_not_flooded(redis: FakeRedis) -> None:
    address = StoreAddress.parse(redis.url)
    link = StoreLink(address, Patience(max_unanswered=5, probe_timeout_s=5.0))
    link.start()
    await link.wait_until_up()
    reader = FeatureReader(link, CacheSettings(0, 0, 0))
    redis.answer = lambda: None
    lookups = [reader.begin(PLAN, hash_key(f"t/{n}"), LONG_S) for n in range(8)]
    assert [lookup.done for lookup in lookups] == [False] * 5 + [True] * 3
    await link.close()
    assert {(await lookup.row()).outcome for lookup in lookups} == {"down"}


async def test_a_loop_that_was_held_up_reads_before_it_gives_up(
    redis: FakeRedis, reader: FeatureReader
) -> None:
    redis.put("t/1", "Ada")
    task = asyncio.create_task(read(reader, "t/1", 0.2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    time.sleep(0.25)  # noqa: ASYNC251 - the point: the loop is blocked beyond the budget
    assert (await task).outcome == "hit"


def test_it_runs_on_uvloop_as_in_a_serve_replica() -> None:
    async def main() -> tuple[str, str]:
        redis = FakeRedis()
        await redis.start()
        redis.put("t/1", "Ada")
        link = StoreLink(StoreAddress.parse(redis.url), EAGER)
        link.start()
        await link.wait_until_up()
        reader = FeatureReader(link, CacheSettings(0, 0, 0))
        good = await read(reader, "t/1")
        redis.answer = lambda: None
        slow = await read(reader, "t/1", 0.005)
        await link.close()
        await redis.stop()
        return good.outcome, slow.outcome

    assert uvloop.run(main()) == ("hit", "timeout")
