"""The cache by itself, and cache and coalescing together under arbitrary interleavings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from features.online import CacheSettings, FeatureReader, FeatureRow, Lookup, StoreLink
from features.online.cache import RowCache
from features.online.format import hash_key
from features.testing import LONG_S, PLAN, Times

ROW = FeatureRow("hit", {"name": "Ada"}, changes_at_s=500.0)


def test_the_least_recently_used_leaves_first() -> None:
    cache = RowCache(CacheSettings(entries=2))
    cache.put("a", ROW, 0.0)
    cache.put("b", ROW, 0.0)
    assert cache.get("a", 0.1, 0.0) is ROW
    cache.put("c", ROW, 0.1)
    assert (cache.get("a", 0.2, 0), cache.get("b", 0.2, 0), len(cache)) == (ROW, None, 2)


def test_a_row_leaves_when_a_view_becomes_stale() -> None:
    cache = RowCache(CacheSettings(ttl_s=1000.0))
    cache.put("a", ROW, 0.0)
    assert cache.get("a", 1.0, 500.0) is ROW
    assert cache.get("a", 1.0, 500.1) is None


def test_no_entries_means_no_cache() -> None:
    cache = RowCache(CacheSettings(entries=0))
    cache.put("a", ROW, 0.0)
    assert len(cache) == 0


class SlowLink:
    """Answers when the test says so, with what the store holds then."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Callable[[Any], None]]] = []
        self.versions: dict[str, int] = {}

    def send(self, command: bytes, on_reply: Callable[[Any], None]) -> bool:
        entity = command.split(b"t/")[1][:1].decode()
        self.sent.append((entity, on_reply))
        return True

    def reply(self, lost: bool) -> None:
        entity, on_reply = self.sent.pop(0)
        text = f"{entity}{self.versions.get(entity, 0)}"
        cell = b"\x12" + bytes([len(text)]) + text.encode()
        on_reply(None if lost else [b"\x08\x01", cell])

    def route(self, key: bytes) -> Any:
        """There is one."""
        return self

    def answered(self) -> None:
        """Nothing is kept."""

    def unanswered(self) -> None:
        """Nothing is kept."""

    def distrust(self, why: str) -> None:
        """Nothing is kept."""


ENTITIES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), ENTITIES),
        st.tuples(st.just("write"), ENTITIES),
        st.tuples(st.just("reply"), st.booleans()),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("wait"), st.sampled_from((0.1, 0.6, 1.1))),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_everybody_gets_an_own_entity_and_nothing_too_old(steps: list[tuple[str, Any]]) -> None:
    asyncio.run(_interleave(steps))


async def _interleave(steps: list[tuple[str, Any]]) -> None:
    link, clock = SlowLink(), Times()
    reader = FeatureReader(cast(StoreLink, link), CacheSettings(2, 1.0, 1.0), clock)
    history: dict[str, list[tuple[float, int]]] = {}
    tasks: list[tuple[str, float, int, asyncio.Task[FeatureRow], Lookup]] = []
    for kind, value in steps:
        if kind == "begin":
            lookup = reader.begin(PLAN, hash_key(f"t/{value}"), LONG_S)
            task = asyncio.ensure_future(lookup.row())
            tasks.append((value, clock.now_s, link.versions.get(value, 0), task, lookup))
        elif kind == "write":
            link.versions[value] = link.versions.get(value, 0) + 1
            history.setdefault(value, []).append((clock.now_s, link.versions[value]))
        elif kind == "reply" and link.sent:
            link.reply(lost=value)
        elif kind == "cancel" and tasks:
            tasks[value % len(tasks)][3].cancel()
        elif kind == "wait":
            clock.now_s += value
        await asyncio.sleep(0)
        under_way = [entity for entity, _ in link.sent]
        assert len(under_way) == len(set(under_way)) == reader.under_way
    while link.sent:
        link.reply(lost=False)
    for entity, began_s, _, task, lookup in tasks:
        done = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(done, asyncio.CancelledError):
            continue
        assert isinstance(done, FeatureRow)
        if done.outcome == "down":
            assert lookup.source in ("store", "shared")
            continue
        name = cast(str, done.values["name"])
        assert name[0] == entity
        # What was current at the latest a time to live before the look-up began.
        current = [n for at_s, n in history.get(entity, []) if at_s <= began_s - 1.0]
        assert int(name[1:]) >= max(current, default=0)
