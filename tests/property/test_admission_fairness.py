"""Fairness of the admission queue, on a small engine with a bound on tokens in flight.

The bound (router/admission/fair.py, after VTC): service of any two tenants, both backlogged over
an interval, divided by their weights, differs by at most 2 * max(w_p * L_input, w_q * M) / w_min.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from router.admission import (
    AdmissionQueue,
    AdmissionSettings,
    ClassSettings,
    Dispatch,
    Share,
    Wait,
)
from router.types import RouteRequest

W_P, W_Q = 1.0, 2.0


@dataclass
class Job:
    request: RouteRequest
    output: int
    made: int = 0


@dataclass
class Engine:
    """Runs what fits into ``limit`` tokens (prompt plus the larger of expected and actual
    output): one output token per job and step. It is the queue's capacity, too."""

    limit: int
    outputs: dict[str, int]
    running: list[Job] = field(default_factory=list)

    def size(self, request: RouteRequest) -> int:
        output = max(request.expected_output_tokens, self.outputs[request.request_id])
        return request.prompt_tokens + output

    def saturated_for(self, request: RouteRequest, share: Share) -> frozenset[str] | None:
        taken = sum(self.size(job.request) for job in self.running)
        return frozenset() if taken + self.size(request) <= self.limit else None

    def holds_back(self, request: RouteRequest, share: Share) -> bool:
        return False


class Site:
    """Queue and engine together; ``service`` is what each tenant was really given."""

    def __init__(self, settings: AdmissionSettings, limit: int) -> None:
        self.now = 1.0
        self.queue = AdmissionQueue(settings, lambda: self.now)
        self.engine = Engine(limit, {})
        self.service: dict[str, float] = {}
        self.waiting: dict[str, int] = {}
        self.order: list[str] = []
        self.ids = itertools.count()

    def offer(self, tenant: str, prompt: int, expected: int, output: int) -> None:
        request = RouteRequest(
            f"{tenant}-{next(self.ids)}", "m", tenant, prompt, output, expected, arrival_s=self.now
        )
        self.engine.outputs[request.request_id] = output
        self.waiting[tenant] = self.waiting.get(tenant, 0) + 1
        self.service.setdefault(tenant, 0.0)
        assert isinstance(self.queue.offer(request), Wait)

    def step(self) -> None:
        """Dispatch what fits, then one token for each running job."""
        while isinstance(outcome := self.queue.next(self.engine), Dispatch):
            request = outcome.request
            self.engine.running.append(Job(request, self.engine.outputs[request.request_id]))
            self.waiting[request.tenant] -= 1
            self.order.append(request.tenant)
        for job in list(self.engine.running):
            self.one_token(job)
        self.now += 0.01

    def one_token(self, job: Job) -> None:
        request = job.request
        if job.made == 0:
            self.service[request.tenant] += W_P * request.prompt_tokens
        job.made += 1
        self.service[request.tenant] += W_Q
        self.queue.progress(request.request_id, 1)
        if job.made >= job.output:
            self.engine.running.remove(job)
            assert self.queue.finish(request.request_id)

    def backlogged(self) -> set[str]:
        return {tenant for tenant, count in self.waiting.items() if count}


def one_class(weights: dict[str, float] | None = None, **more: object) -> AdmissionSettings:
    only = ClassSettings("standard", 0, max_requests=10**6, max_wait_s=None)
    return AdmissionSettings(
        classes=(only,), input_weight=W_P, output_weight=W_Q, tenant_weights=weights or {}, **more
    )  # type: ignore[arg-type]


def bound(longest_prompt: int, limit: int, least_weight: float) -> float:
    return 2 * max(W_P * longest_prompt, W_Q * limit) / least_weight


def check_spread(site: Site, weights: dict[str, float], start: dict, longest: int) -> None:
    """Compare every pair over the interval in which both have been backlogged without a break."""
    active = site.backlogged()
    for tenant in list(start):
        if tenant not in active:
            del start[tenant]
    for tenant in active - start.keys():
        start[tenant] = {}
    allowed = bound(longest, site.engine.limit, min(weights.values()))
    for a, b in itertools.combinations(sorted(active), 2):
        now = (site.service[a] / weights[a]) - (site.service[b] / weights[b])
        # The pair's interval starts when the later of the two became backlogged.
        key = f"{a}|{b}"
        first_seen = start[a].get(key) if start[a].get(key) is start[b].get(key) else None
        if first_seen is None:
            first_seen = start[a][key] = start[b][key] = [now, now]
        first_seen[0] = min(first_seen[0], now)
        first_seen[1] = max(first_seen[1], now)
        assert first_seen[1] - first_seen[0] <= allowed + 1e-6


@dataclass(frozen=True)
class Habit:
    """How one tenant asks: bursts of ``count`` like requests, each ``every`` steps."""

    weight: float
    prompt: int
    expected: int
    output: int
    count: int
    every: int
    starts: int


habits = st.builds(
    Habit,
    weight=st.sampled_from([0.5, 1.0, 3.0]),
    prompt=st.integers(1, 60),
    expected=st.integers(0, 40),
    output=st.integers(1, 40),
    count=st.integers(1, 80),
    every=st.integers(20, 400),
    starts=st.integers(0, 300),
)


@hypothesis_settings(max_examples=80, deadline=None)
@given(
    all_habits=st.lists(habits, min_size=2, max_size=4),
    limit=st.integers(100, 200),
    seed=st.integers(0, 10**6),
)
def test_service_of_backlogged_tenants_stays_within_the_bound(all_habits, limit, seed):
    rng = random.Random(seed)
    named = {f"t{n}": habit for n, habit in enumerate(all_habits)}
    weights = {name: habit.weight for name, habit in named.items()}
    site = Site(one_class(weights), limit)
    start: dict[str, dict] = {}
    for moment in range(600):
        for name, habit in named.items():
            if moment >= habit.starts and (moment - habit.starts) % habit.every == 0:
                for _ in range(habit.count):
                    site.offer(name, rng.randint(1, habit.prompt), habit.expected, habit.output)
        site.step()
        check_spread(site, weights, start, longest=60)
    asked = sum(len(range(h.starts, 600, h.every)) * h.count for h in all_habits)
    assert len(site.order) + len(site.queue) == asked


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), tenants=st.integers(2, 6))
def test_a_backlogged_tenant_runs_within_a_bounded_number_of_dispatches(seed, tenants):
    """Between two dispatches of one tenant, each other one gets at most 2 U of service, and no
    dispatch costs less than one prompt: that bounds their number."""
    rng = random.Random(seed)
    site = Site(one_class(), limit=200)
    names = [f"t{n}" for n in range(tenants)]
    for name in names:
        for _ in range(80):
            site.offer(name, rng.randint(20, 60), rng.randint(1, 20), rng.randint(1, 20))
    while site.backlogged() == set(names):
        site.step()
    most = (tenants - 1) * bound(60, 200, 1.0) / (W_P * 20)
    for name in names:
        turns = [n for n, who in enumerate(site.order) if who == name]
        gaps = [b - a for a, b in itertools.pairwise([-1, *turns])]
        assert max(gaps) <= most + 1


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))


def test_jains_index_among_eight_unlike_tenants():
    """Long and short prompts, long and short answers, estimates too high and too low."""
    rng = random.Random(3)
    weights = {f"t{n}": (1.0, 2.0)[n % 2] for n in range(8)}
    site = Site(one_class(weights), limit=2000)
    start = {}
    for n, name in enumerate(weights):
        for _ in range(400):
            prompt, output = rng.randint(1, 40) * (1 + n), rng.randint(1, 60)
            site.offer(name, prompt, max(0, output + rng.randint(-30, 30)), output)
    for moment in range(1500):
        site.step()
        if moment == 100:
            start = dict(site.service)
    assert site.backlogged() == set(weights)
    assert jain([(site.service[t] - start[t]) / w for t, w in weights.items()]) >= 0.98


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), extra=st.integers(1, 400))
def test_a_deeper_flood_changes_nothing_for_the_others(seed, extra):
    """However much one backlogged tenant has queued, the order of service is the same."""

    def order(depth: int) -> list[str]:
        rng = random.Random(seed)
        site = Site(one_class(), limit=300)
        for _ in range(40):
            for name in ("b", "c"):
                site.offer(name, rng.randint(1, 60), rng.randint(1, 20), rng.randint(1, 20))
        for _ in range(40):
            site.offer("flood", rng.randint(30, 60), rng.randint(1, 20), rng.randint(1, 20))
        for _ in range(depth):
            site.offer("flood", 60, 20, 20)
        while len(site.backlogged()) == 3:
            site.step()
        return site.order

    quiet, flooded = order(0), order(extra)
    shared = min(len(quiet), len(flooded))
    assert quiet[:shared] == flooded[:shared]


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), flood=st.integers(50, 500))
def test_a_light_tenant_waits_no_longer_for_a_longer_flood(seed, flood):
    """Its single request runs once the flood's own flight has been caught up with: the number of
    dispatches before it does not grow with the flood."""
    rng = random.Random(seed)
    site = Site(one_class(), limit=300)
    for _ in range(flood):
        site.offer("flood", rng.randint(20, 60), rng.randint(1, 20), rng.randint(1, 20))
    for _ in range(rng.randint(1, 20)):
        site.step()
    before = len(site.order)
    site.offer("light", 60, 20, 20)
    while site.waiting["light"]:
        site.step()
    assert site.order.index("light", before) - before <= 1  # an equal, earlier head may go first


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    weight=st.sampled_from([1.0, 2.0, 5.0]),
    order=st.sampled_from([0, 1]),
)
def test_classes_share_strictly_or_by_weight(seed, weight, order):
    rng = random.Random(seed)
    classes = (
        ClassSettings("up", 0, weight=weight, max_wait_s=None),
        ClassSettings("down", order, max_wait_s=None),
    )
    now = [1.0]
    queue = AdmissionQueue(AdmissionSettings(classes=classes), lambda: now[0])
    costs = {"up": 0.0, "down": 0.0}
    for n in range(400):
        name = ("up", "down")[n % 2]
        prompt = rng.randint(1, 100)
        queue.offer(RouteRequest(f"r{n}", "m", f"t{n % 3}", prompt, 10, 10, name, arrival_s=1.0))
    engine = Engine(10**9, {f"r{n}": 10 for n in range(400)})
    largest = 100 + 2 * 10
    for _ in range(200):
        outcome = queue.next(engine)
        assert isinstance(outcome, Dispatch)
        request = outcome.request
        costs[request.priority_class] += request.prompt_tokens + 2 * 10
        if order == 1:
            assert request.priority_class == "up"
        elif any(s.waiting == 0 for s in queue.stats()):
            break
        else:
            assert abs(costs["up"] / weight - costs["down"]) <= largest


@hypothesis_settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), every=st.integers(1, 20))
def test_no_class_starves(seed, every):
    """Under an endless stream of a higher class, a lower one runs at least once in every
    ``ageing_every`` + 1 dispatches while there is room, so its n-th request within n times that."""
    rng = random.Random(seed)
    classes = tuple(ClassSettings(f"c{n}", n, max_wait_s=None) for n in range(3))
    now = [1.0]
    settings = AdmissionSettings(classes=classes, ageing_after_s=0.0, ageing_every=every)
    queue = AdmissionQueue(settings, lambda: now[0])
    lower = rng.randint(1, 10)
    for n in range(lower):
        for level in (1, 2):
            queue.offer(RouteRequest(f"c{level}-{n}", "m", "t", 10, 5, 5, f"c{level}"))
    engine = Engine(10**9, {})
    engine.outputs = {f"c{level}-{n}": 5 for n in range(lower) for level in (1, 2)}
    done = {"c0": 0, "c1": 0, "c2": 0}
    for n in range(lower * (every + 2) * 2):
        engine.outputs[f"x{n}"] = 5
        queue.offer(RouteRequest(f"x{n}", "m", "t", 10, 5, 5, "c0"))
        outcome = queue.next(engine)
        assert isinstance(outcome, Dispatch)
        done[outcome.request.priority_class] += 1
    assert (done["c1"], done["c2"]) == (lower, lower)
