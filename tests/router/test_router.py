"""Index, ledger and policy together: choosing reserves; the default profile does as it says."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from dataclasses import replace

import msgspec
import pytest

import router.scorers  # noqa: F401 - registers the policies
from router.ledger import Reservation
from router.policy import build_policy
from router.router import Router
from router.types import ReplicaInfo, ReplicaLoad, ReplicaStats, RouteRequest
from weir.errors import NoReplicaError

BLOCK = 16


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def infos(count: int, **more: object) -> list[ReplicaInfo]:
    return [replace(ReplicaInfo(f"r{i}", kv_blocks_total=10_000), **more) for i in range(count)]  # type: ignore[arg-type]


def make(count: int = 4, policy: str = "weir", **params: object) -> tuple[Router, Clock]:
    clock = Clock()
    made = Router(build_policy(policy, params), clock, random.Random(1))
    made.set_replicas(infos(count))
    return made, clock


def prompt(*parts: str, blocks: int = 10) -> RouteRequest:
    """``blocks`` blocks per part; a part's hashes depend on all parts before it."""
    hashes = [
        zlib.crc32(f"{parts[: i + 1]} {n}".encode())
        for i in range(len(parts))
        for n in range(blocks)
    ]
    return RouteRequest("q", "m", "t", BLOCK * len(hashes) + 1, 50, 50, block_hashes=tuple(hashes))


def serve(made: Router, request: RouteRequest) -> str:
    reservation = made.choose(request)
    reservation.progress(1)
    reservation.release()
    return reservation.replica_id


class TestChoose:
    def test_a_session_stays_where_its_blocks_are(self) -> None:
        made, _ = make(8)
        first = serve(made, prompt("system", "s1"))
        for turn in range(5):
            more = [f"turn{n}" for n in range(turn + 1)]
            assert serve(made, prompt("system", "s1", *more)) == first

    def test_the_reservation_counts_only_uncached_tokens(self) -> None:
        made, _ = make(1)
        serve(made, prompt("a"))
        reservation = made.choose(prompt("a", "b"))
        view = made.snapshot().replicas[0]
        assert reservation.decision.overlap_blocks == 10
        assert (view.load.requests, view.load.prefill_tokens) == (1, 10 * BLOCK + 1)

    def test_a_fully_held_prompt_still_computes_its_last_token(self) -> None:
        made, _ = make(1)
        whole = msgspec.structs.replace(prompt("a"), prompt_tokens=10 * BLOCK)
        serve(made, whole)
        made.choose(whole)
        assert made.snapshot().replicas[0].load.prefill_tokens == 1

    def test_a_block_that_all_prompts_share_does_not_draw_all_to_one_replica(self) -> None:
        """The trap of the Mooncake traces for a pure longest match."""
        made, _ = make(8)
        live = [made.choose(prompt("everyone", f"own{i}")) for i in range(80)]
        counts = Counter(reservation.replica_id for reservation in live)
        assert max(counts.values()) <= 14
        assert min(counts.values()) >= 6

    def test_a_hot_prefix_gets_a_second_holder_when_the_first_is_busy(self) -> None:
        made, _ = make(4)
        hot = prompt("hot", blocks=200)
        first = serve(made, hot)
        small = [prompt("hot", f"q{i}", blocks=200) for i in range(12)]
        chosen = [made.choose(request).replica_id for request in small]
        assert chosen[0] == first
        assert len(set(chosen)) > 1
        holders = made.view().held(hot)
        assert set(chosen) <= set(holders)

    def test_excluded_replicas_are_not_chosen(self) -> None:
        made, _ = make(3)
        first = serve(made, prompt("a"))
        assert made.choose(prompt("a"), exclude=[first]).replica_id != first
        with pytest.raises(NoReplicaError):
            made.choose(prompt("a"), exclude=["r0", "r1", "r2"])

    def test_no_replicas_at_all(self) -> None:
        made, _ = make(0)
        with pytest.raises(NoReplicaError):
            made.choose(prompt("a"))

    def test_a_full_replica_is_passed_over_until_all_are_full(self) -> None:
        made, _ = make(2)
        made.set_replicas(infos(2, max_running=2))
        first = serve(made, prompt("a", blocks=300))
        chosen = [made.choose(prompt("a", blocks=300)).replica_id for _ in range(4)]
        assert Counter(chosen) == {"r0": 2, "r1": 2}
        assert chosen[:2] == [first, first]
        assert made.choose(prompt("a", blocks=300)).replica_id in ("r0", "r1")

    def test_a_prompt_goes_where_its_kv_fits(self) -> None:
        made, _ = make(0)
        small, large = ReplicaInfo("small", kv_blocks_total=20), ReplicaInfo("large")
        made.set_replicas([small, replace(large, kv_blocks_total=2000)])
        assert {serve(made, prompt(f"p{i}", blocks=30)) for i in range(20)} == {"large"}

    def test_without_hashes_it_is_load_alone(self) -> None:
        made, _ = make(4)
        plain = RouteRequest("q", "m", "t", 100, 10, 10)
        counts = Counter(made.choose(plain).replica_id for _ in range(40))
        assert set(counts.values()) == {10}


class TestStats:
    def test_other_gateways_work_counts_while_the_news_is_fresh(self) -> None:
        made, clock = make(2)
        elsewhere = ReplicaLoad(requests=40, prefill_tokens=9000, decode_tokens=4000)
        made.update_stats("r0", ReplicaStats(at_s=clock.now_s, elsewhere=elsewhere))
        assert made.snapshot().replicas[0].load == elsewhere
        assert {serve(made, prompt(f"p{i}")) for i in range(20)} == {"r1"}
        clock.now_s += 60.0
        assert {serve(made, prompt(f"q{i}")) for i in range(40)} == {"r0", "r1"}

    def test_what_an_engine_says_of_itself_is_not_taken_for_others_work(self) -> None:
        made, clock = make(2)
        # Said before our own request there ended: nobody else has anything in flight.
        made.update_stats("r0", ReplicaStats(running=3, waiting=2, at_s=clock.now_s))
        after = Counter(made.choose(prompt(f"n{i}")).replica_id for i in range(10))
        assert set(after.values()) == {5}

    def test_two_gateways_share_out_what_neither_has_dispatched_alone(self) -> None:
        (one, clock), (two, _) = make(4), make(4)
        for number in range(40):
            for made, other in ((one, two), (two, one)):
                for view in other.snapshot().replicas:
                    own = other.own_load(view.replica_id)
                    stats = ReplicaStats(at_s=clock.now_s, elsewhere=own)
                    made.update_stats(view.replica_id, stats)
                made.choose(prompt(f"{number}-{made is one}"))
        ids = [view.replica_id for view in one.snapshot().replicas]
        total = [one.own_load(i).requests + two.own_load(i).requests for i in ids]
        assert sum(total) == 80
        assert max(total) - min(total) <= 1


class TestMembership:
    def test_a_replica_that_comes_back_holds_nothing_and_owes_nothing(self) -> None:
        made, _ = make(2)
        old = made.choose(prompt("a"))
        made.set_replicas([info for info in infos(2) if info.replica_id != old.replica_id])
        made.set_replicas(infos(2))
        assert made.view().held(prompt("a")) == {}
        new = made.choose(prompt("b"), exclude=[r for r in ("r0", "r1") if r != old.replica_id])
        assert old.release()
        loads = {view.replica_id: view.load.requests for view in made.snapshot().replicas}
        assert loads[new.replica_id] == 1

    def test_events_make_predictions_expire(self) -> None:
        made, clock = make(0)
        made.set_replicas(infos(1, kv_events=True))
        serve(made, prompt("a"))
        assert made.view().held(prompt("a")) == {"r0": 10}
        made.index.stored("r0", prompt("a").block_hashes[:4])
        clock.now_s += 3600.0
        assert made.view().held(prompt("a")) == {"r0": 4}

    def test_without_events_they_stay(self) -> None:
        made, clock = make(1)
        serve(made, prompt("a"))
        clock.now_s += 3600.0
        assert made.view().held(prompt("a")) == {"r0": 10}


def test_latencies_are_learned_from_reservations() -> None:
    made, clock = make(2)

    def run(reservation: Reservation) -> None:
        clock.now_s += 0.2
        reservation.progress(1)
        for _ in range(10):
            clock.now_s += 0.02
            reservation.progress(1)
        reservation.release()

    for i in range(100):
        run(made.choose(prompt(f"p{i}")))
    fit = made.snapshot().columns.latency[0]
    assert fit.ttft_s(10 * BLOCK + 1, 1) == pytest.approx(0.2, rel=0.05)
    assert fit.tpot_s(1, 10 * BLOCK + 1) == pytest.approx(0.02, rel=0.05)


def test_the_default_profile_equals_its_scorer_in_a_weighted_one() -> None:
    one, _ = make(6, "weir")
    two, _ = make(6, "weighted")
    rng = random.Random(4)
    for i in range(200):
        request = prompt(
            "s", f"g{rng.randrange(5)}", f"u{rng.randrange(40)}", blocks=rng.randrange(1, 9)
        )
        a, b = one.choose(request), two.choose(request)
        assert a.replica_id == b.replica_id
        if i % 3:
            a.release()
            b.release()
