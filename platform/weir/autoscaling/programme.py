"""The cheapest replicas that do the work: an integer programme, and a greedy answer behind it.

Variables: replicas ``n`` of each pool (whole numbers), the seconds of each pool's time that go to
prompts and to answers, and the share of requests that spills to the student. Constraints: prompt
and output tokens are all done; time is at most the usable share of the replicas' time, less what
interruptions take; and losing any one place (a market of an accelerator in a region) leaves at
least ``keep`` of the work possible. The objective is USD per hour.

Solved by HiGHS (Huangfu and Hall, Mathematical Programming Computation 2018) with a limit of nodes,
not of seconds, so that the same question has the same answer on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import highspy
import numpy as np

from weir.autoscaling.report import PoolState, Student

MOST_NODES = 200
_GAP = 1e-3
_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens per second to be computed and to be generated, and the requests they belong to."""

    computed_tokens_per_s: float
    output_tokens_per_s: float
    requests_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Risk:
    """``keep``: share of the work that must still be possible when one spot place is lost whole.
    ``replace_s``: so long a lost replica is missed. ``safety``: interruptions that are reckoned
    with, over the expected ones."""

    keep: float = 0.7
    replace_s: float = 180.0
    safety: float = 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """``short``: share of the work that even all replicas that may be started cannot do; above 0
    the answer is as much as there is. ``exposed``: no choice of replicas leaves what was asked for
    when a place is lost, so the answer does without. ``by``: ``programme`` or ``greedy``.
    ``nodes``: that the programme's search looked at, at most :data:`MOST_NODES`."""

    targets: Mapping[str, int]
    usd_per_hour: float
    spill_share: float = 0.0
    short: float = 0.0
    exposed: bool = False
    by: str = "programme"
    nodes: int = 0


def cheapest(
    pools: Sequence[PoolState], work: Work, risk: Risk, student: Student | None = None
) -> Answer:
    """The cheapest way; never dearer than :func:`greedy`."""
    plain = greedy(pools, work, risk)
    if plain.exposed:
        risk = replace(risk, keep=0.0)
    solved = _solve(pools, work, risk, student)
    if solved is None:
        return plain
    solved = replace(solved, exposed=plain.exposed)
    if not plain.short and plain.usd_per_hour <= solved.usd_per_hour + 1e-9:
        return replace(plain, nodes=solved.nodes)
    return solved


def greedy(pools: Sequence[PoolState], work: Work, risk: Risk) -> Answer:
    """Replicas of the pool that is cheapest for what is missing, a few at a time; then those that
    turned out not to be needed go, the dearest first."""
    most = {pool.name: pool.most for pool in pools}
    exposed = risk.keep > 0 and missing_work(pools, most, work, risk) > _TINY
    if exposed:
        risk = replace(risk, keep=0.0)
    found = _greedy(pools, work, risk)
    return replace(found, exposed=exposed)


def _greedy(pools: Sequence[PoolState], work: Work, risk: Risk) -> Answer:
    counts = {pool.name: pool.least for pool in pools}
    most = {pool.name: pool.most for pool in pools}
    missing = missing_work(pools, counts, work, risk)
    while missing > _TINY:
        best: tuple[float, str, float] | None = None
        for pool in pools:
            if counts[pool.name] < pool.most:
                more = {**counts, pool.name: counts[pool.name] + 1}
                left = missing_work(pools, more, work, risk)
                if left < missing - 1e-12:
                    price = pool.usd_per_hour / (missing - left)
                    best = min(best or (math.inf, "", 0.0), (price, pool.name, left))
        if best is None:
            return Answer(counts, _usd(pools, counts), short=_short(pools, work, risk), by="greedy")
        many = _how_many(missing, best[2])
        name = best[1]
        counts[name] = min(most[name], counts[name] + many)
        missing = missing_work(pools, counts, work, risk) if many > 1 else best[2]
    for pool in sorted(pools, key=lambda p: -p.usd_per_hour):
        while counts[pool.name] > pool.least:
            less = {**counts, pool.name: counts[pool.name] - 1}
            if missing_work(pools, less, work, risk) > _TINY:
                break
            counts = less
    return Answer(counts, _usd(pools, counts), by="greedy")


def _how_many(missing: float, left: float) -> int:
    """As many at once as leave half of the work to be looked at anew."""
    return max(1, int(0.5 * missing / (missing - left)))


def time_of(pool: PoolState, risk: Risk) -> float:
    """Seconds per second of one replica that may be planned for."""
    lost = pool.interruptions_per_hour * risk.replace_s / 3600 * risk.safety
    return max(0.05, pool.capacity.usable * (1 - min(0.9, lost)))


def _scenarios(
    pools: Sequence[PoolState], risk: Risk
) -> Iterator[tuple[tuple[PoolState, ...], float]]:
    """Pools that are there, and the share of the work that must be possible with them."""
    yield tuple(pools), 1.0
    if risk.keep > 0:
        for place in sorted({pool.place for pool in pools if pool.market == "spot"}):
            yield tuple(pool for pool in pools if pool.place != place), risk.keep


def missing_work(
    pools: Sequence[PoolState], counts: Mapping[str, int], work: Work, risk: Risk
) -> float:
    """Shares of the work that these replicas cannot do, summed over all scenarios."""
    return sum(
        sum(_left(there, counts, work, share, risk)) for there, share in _scenarios(pools, risk)
    )


def _left(
    pools: Sequence[PoolState], counts: Mapping[str, int], work: Work, share: float, risk: Risk
) -> tuple[float, float]:
    """Of the prompts and of the answers, the shares that are not done: prefill and decode pools do
    their own part, and mixed ones the rest, whoever is comparatively better at prompts first."""
    prompts, answers = share * work.computed_tokens_per_s, share * work.output_tokens_per_s
    mixed: list[PoolState] = []
    for pool in pools:
        time = counts[pool.name] * time_of(pool, risk)
        if pool.role == "prefill":
            prompts -= time * pool.capacity.prefill_tokens_per_s
        elif pool.role == "decode":
            answers -= time * pool.capacity.decode_tokens_per_s
        else:
            mixed.append(pool)
    mixed.sort(key=_better_at_prompts)
    for pool in mixed:
        time = counts[pool.name] * time_of(pool, risk)
        used = min(time, max(0.0, prompts) / pool.capacity.prefill_tokens_per_s)
        prompts -= used * pool.capacity.prefill_tokens_per_s
        answers -= (time - used) * pool.capacity.decode_tokens_per_s
    return (
        max(0.0, prompts) / max(work.computed_tokens_per_s, 1e-9),
        max(0.0, answers) / max(work.output_tokens_per_s, 1e-9),
    )


def _better_at_prompts(pool: PoolState) -> float:
    return -pool.capacity.prefill_tokens_per_s / pool.capacity.decode_tokens_per_s


def _short(pools: Sequence[PoolState], work: Work, risk: Risk) -> float:
    """Share of the work that all replicas together cannot do."""
    most = {pool.name: pool.most for pool in pools}
    return max(_left(pools, most, work, 1.0, risk))


def _usd(pools: Sequence[PoolState], counts: Mapping[str, int]) -> float:
    return sum(counts[pool.name] * pool.usd_per_hour for pool in pools)


def _in_order(pools: Sequence[PoolState], counts: Mapping[str, int]) -> dict[str, int]:
    """The same answer with the most replicas in the first of pools that differ in their place
    alone. Which of them an answer names is chance, and the next one would move the fleet."""
    alike: dict[PoolState, list[str]] = {}
    for pool in pools:
        alike.setdefault(replace(pool, name="", region=""), []).append(pool.name)
    ordered = dict(counts)
    for names in alike.values():
        most_first = sorted((counts[name] for name in names), reverse=True)
        ordered |= dict(zip(names, most_first, strict=True))
    return ordered


class _Quiet(highspy.Highs):
    """Without callbacks, whose setting up writes a banner to standard output."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def enableCallbacks(self) -> None:  # noqa: N802 - the library's name
        """None are wanted."""
        self.setOptionValue("output_flag", False)


class _Model:
    """The programme's columns and rows. Columns: replicas of each pool, the spilt share, and for
    each scenario each pool's time for prompts and for answers."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[tuple[dict[int, float], float]] = []
        self.nodes = 0

    def at_most(self, row: dict[int, float], bound: float) -> None:
        self.rows.append((row, bound))

    def solve(
        self, cost: Sequence[float], least: Sequence[float], most: Sequence[float], whole: int
    ) -> Sequence[float] | None:
        """The first ``whole`` columns are whole numbers; None: nothing was found."""
        highs = _Quiet()
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("mip_max_nodes", MOST_NODES)
        highs.setOptionValue("mip_rel_gap", _GAP)
        # A programme this small is solved before these searches for a first answer pay.
        highs.setOptionValue("mip_heuristic_run_feasibility_jump", False)
        highs.setOptionValue("mip_heuristic_effort", 0.0)
        highs.setOptionValue("mip_allow_restart", False)
        highs.passModel(self._written(cost, least, most, whole))
        highs.run()
        info = highs.getInfo()
        self.nodes = max(0, info.mip_node_count)
        if info.primal_solution_status != 2:
            return None
        return list(highs.getSolution().col_value)

    def _written(
        self, cost: Sequence[float], least: Sequence[float], most: Sequence[float], whole: int
    ) -> highspy.HighsLp:
        """The whole programme at once, which is several times faster than row by row."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self.columns, len(self.rows)
        lp.col_cost_ = np.array(cost)
        lp.col_lower_, lp.col_upper_ = np.array(least), np.array(most)
        lp.row_lower_ = np.full(len(self.rows), -highspy.kHighsInf)
        lp.row_upper_ = np.array([bound for _, bound in self.rows])
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.cumsum([0, *(len(row) for row, _ in self.rows)])
        lp.a_matrix_.index_ = np.array([place for row, _ in self.rows for place in row])
        lp.a_matrix_.value_ = np.array([value for row, _ in self.rows for value in row.values()])
        kinds = [highspy.HighsVarType.kInteger] * whole
        kinds += [highspy.HighsVarType.kContinuous] * (self.columns - whole)
        lp.integrality_ = kinds
        return lp


def _solve(
    pools: Sequence[PoolState], work: Work, risk: Risk, student: Student | None
) -> Answer | None:
    scenarios, count = list(_scenarios(pools, risk)), len(pools)
    spilt = count
    model = _Model(count + 1 + 2 * count * len(scenarios))
    numbers = {pool.name: index for index, pool in enumerate(pools)}
    for number, (there, share) in enumerate(scenarios):
        _add_scenario(model, there, share, numbers, work, risk, count + 1 + 2 * count * number)
    spill_usd = student.usd_per_request * work.requests_per_s * 3600 if student else 0.0
    free = model.columns - count - 1
    most_share = student.most_share if student else 0.0
    found = model.solve(
        [*(pool.usd_per_hour for pool in pools), spill_usd, *[0.0] * free],
        [*(float(pool.least) for pool in pools), 0.0, *[0.0] * free],
        [*(float(pool.most) for pool in pools), most_share, *[math.inf] * free],
        count,
    )
    if found is None:
        return None
    counts = _in_order(pools, {p.name: round(found[numbers[p.name]]) for p in pools})
    share = max(0.0, found[spilt])
    usd = _usd(pools, counts) + share * spill_usd
    return Answer(counts, usd, 0.0 if share < _TINY else share, nodes=model.nodes)


def _add_scenario(
    model: _Model,
    there: Sequence[PoolState],
    share: float,
    numbers: Mapping[str, int],
    work: Work,
    risk: Risk,
    first: int,
) -> None:
    """Prompts and answers are done with the pools that are there, in the time that they have."""
    count = len(numbers)
    # What spills is not done here: share * work * (1 - spilt) <= what is done.
    prompts = {count: -share * work.computed_tokens_per_s}
    answers = {count: -share * work.output_tokens_per_s}
    for pool in there:
        number = numbers[pool.name]
        for_prompts, for_answers = first + 2 * number, first + 2 * number + 1
        time = {number: -time_of(pool, risk)}
        if pool.role != "decode":
            prompts[for_prompts] = -pool.capacity.prefill_tokens_per_s
            time[for_prompts] = 1.0
        if pool.role != "prefill":
            answers[for_answers] = -pool.capacity.decode_tokens_per_s
            time[for_answers] = 1.0
        model.at_most(time, 0.0)
    model.at_most(prompts, -share * work.computed_tokens_per_s)
    model.at_most(answers, -share * work.output_tokens_per_s)
