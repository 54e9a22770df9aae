"""The control process tells what money the ledger has seen this month."""

from __future__ import annotations

from deployments.control.metrics import PATH, ScalingMetrics
from tests.deployments.control.world import START_S, World, free_port, running, settings_of
from weir.autoscaling.deciding import Decided
from weir.autoscaling.report import Capacity, Decision, Demand, Explanation, ModelState, PoolState
from weir.ledger import ReplicaTime, UsageRecord
from weir.ledger.rates import Rate
from weir.ledger.store import Arrived, store
from weir.metrics import ControlMetrics
from weir.settings.server import MetricsSettings
from weir.tenancy import hash_key

# START_S is the first second of a month.
_IN_MONTH_MS = int(START_S * 1000) + 5_400_000
_NANO_USD_PER_HOUR = 3_600_000_000


def _use(world: World, at_ms: int, first: int) -> None:
    """A request of one second on a replica that is up for ten, at a nano-USD a microsecond."""
    record = UsageRecord(
        leg=f"{first}.0.0.0",
        request=str(first),
        tenant="acme",
        key="key1",
        model="big",
        asked="big",
        replica="r1",
        started_ms=at_ms - 1000,
        ended_ms=at_ms,
        priority_class="interactive",
        endpoint="chat",
        prompt_tokens=100,
        output_tokens=10,
        nano_usd=2_000_000,
        billed=True,
        prefill_us=500_000,
        decode_us=500_000,
        requests=1,
    )
    up = ReplicaTime(replica="r1", model="big", pool="", from_ms=at_ms - 10_000, until_ms=at_ms)
    rates = {("big", ""): Rate(_NANO_USD_PER_HOUR, _NANO_USD_PER_HOUR)}
    arrived = [Arrived("outbox", first, first + 2, [record, up])]
    store(world.store.engine, arrived, rates, at_ms)


async def _values(world: World) -> dict[str, float]:
    text = (await world.ask("GET", PATH, None)).text
    samples = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in samples}


async def test_money_of_this_month_is_told(world: World) -> None:
    _use(world, int(START_S * 1000) - 60_000, 0)  # in the month before
    _use(world, _IN_MONTH_MS, 2)
    world.clock.now_s = START_S + 7200
    told = await _values(world)
    assert told['weir_month_paid_usd{model="big",pool=""}'] == 0.01
    assert told['weir_month_idle_usd{model="big",pool=""}'] == 0.009
    assert told['weir_month_cost_usd{priority="interactive"}'] == 0.001
    assert told['weir_month_billed_usd{priority="interactive"}'] == 0.002
    assert told['weir_month_saved_usd{by="spot"}'] == 0


async def test_a_report_is_kept_for_a_minute(world: World) -> None:
    world.clock.now_s = START_S + 7200
    assert 'weir_month_paid_usd{model="big",pool=""}' not in await _values(world)
    _use(world, _IN_MONTH_MS, 0)
    assert 'weir_month_paid_usd{model="big",pool=""}' not in await _values(world)
    world.clock.now_s += 61
    assert (await _values(world))['weir_month_paid_usd{model="big",pool=""}'] == 0.01


def test_what_autoscaling_decided_is_told() -> None:
    capacity = Capacity(1000.0, 100.0)
    pools = (PoolState("fast", capacity, 2.0), PoolState("slow", capacity, 1.0))
    model = ModelState("big", {"interactive": Demand(arrivals_per_s=3.0)}, pools)
    decision = Decision({"fast": 2, "slow": 0}, Explanation({"short": 0.25}))
    metrics = ControlMetrics()
    tell = ScalingMetrics(metrics)
    for before in ({"fast": 1, "slow": 0}, {"fast": 2, "slow": 0}):
        tell([Decided(model, 1.0, decision.targets, before, decision, {})])
    value = metrics.registry.get_sample_value
    of_pool = {"model": "big", "pool": "fast"}
    assert value("weir_autoscaling_target_replicas", of_pool) == 2
    assert value("weir_autoscaling_figure", {"model": "big", "figure": "short"}) == 0.25
    arrivals = {"model": "big", "priority": "interactive"}
    assert value("weir_autoscaling_arrivals_per_second", arrivals) == 3
    assert value("weir_autoscaling_usd_per_hour", {"model": "big"}) == 4
    assert value("weir_autoscaling_changes_total", {"model": "big"}) == 1


async def test_on_a_port_of_its_own_it_needs_a_key(database_url: str) -> None:
    settings = settings_of(port=free_port(), key_sha256=[hash_key("operator")])
    metrics = MetricsSettings(key_sha256=(hash_key("watch"),))
    server = settings.server.model_copy(update={"metrics": metrics})
    settings = settings.model_copy(update={"server": server})
    async with running(database_url, settings) as world:
        for key in (None, "wrong", "operator"):
            assert (await world.ask("GET", PATH, key)).status_code == 401
        assert (await world.ask("GET", PATH, "watch")).status_code == 200
