"""From rounds to rows and marks. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from load_tests.dataplane.measure import ALONE, FULL, KINDS, ONE_TOKEN, SPOKEN, Phase, Round
from load_tests.dataplane.systems import System
from load_tests.report import Mark, absent_row, median

Rounds = Mapping[str, Mapping[int, Round]]
"""System key, round number: what was measured. Rounds that failed are missing."""

COLUMNS: tuple[tuple[str, Phase, str], ...] = (
    ("req_per_s_at_32_streams", FULL, "req_per_s"),
    ("ttft_ms_p50_at_1_stream", ALONE, "ttft_ms_p50"),
    ("ttft_ms_p50_at_32_streams", FULL, "ttft_ms_p50"),
    ("ttft_ms_p90_at_32_streams", FULL, "ttft_ms_p90"),
    ("ttft_ms_p99_at_32_streams", FULL, "ttft_ms_p99"),
    ("gap_ms_p50_at_32_streams", FULL, "gap_ms_p50"),
    ("gap_ms_p99_at_32_streams", FULL, "gap_ms_p99"),
    ("request_ms_p50_at_1_stream", ALONE, "request_ms_p50"),
    ("req_per_s_of_1_token", ONE_TOKEN, "req_per_s"),
    ("text_chunks_per_request", FULL, "text_chunks_per_request"),
    ("prompt_tokens_mean", FULL, "prompt_tokens_mean"),
)
NOTHING_MS = 0.01
"""A process that spends less than this on a request is no hop of it."""

OTHERS = (
    "cpu_ms_per_request",
    "pss_mb",
    "rss_mb",
    "processes",
    "seconds_to_ready",
    "idle_cpu_percent_of_a_core",
    "generator_cpu_percent_of_a_core",
    "rounds",
    "requests",
    "errors",
)


def system_rows(
    systems: Sequence[System], rounds: Rounds, missing: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row a system: medians over its rounds, or why there are none."""
    rows = []
    for system in systems:
        done = list(rounds.get(system.key, {}).values())
        table = "engine behind it" if system.kind == "engine" else "gateway alone"
        if done:
            row = {"system": system.title, **_figures(done)}
        else:
            names = [name for name, _, _ in COLUMNS] + list(OTHERS)
            row = absent_row(system.title, missing.get(system.key, "not measured"), names)
        rows.append({"table": table, **row})
    return rows


def kind_rows(systems: Sequence[System], rounds: Rounds) -> list[dict[str, Any]]:
    """What is not plain chat, at 32 streams: a row for each kind and each system that was asked."""
    rows = []
    for phase in (*KINDS, *SPOKEN):
        for system in systems:
            done = [r for r in rounds.get(system.key, {}).values() if phase.name in r.phases]
            if done:
                rows.append(
                    {
                        "table": _kind_table(system),
                        "system": system.title,
                        "asks for": phase.name,
                        **_kind_figures(done, phase),
                    }
                )
    return rows


def _kind_table(system: System) -> str:
    where = "engine behind it" if system.kind == "engine" else "gateway alone"
    return f"other than plain chat, 32 streams, {where}"


def _kind_figures(done: Sequence[Round], phase: Phase) -> dict[str, Any]:
    measured = [one.phases[phase.name] for one in done]
    keys = ("req_per_s", "ttft_ms_p50", "ttft_ms_p99", "gap_ms_p50", "text_chunks_per_request")
    row: dict[str, Any] = {key: _median([m.figures[key] for m in measured]) for key in keys}
    row["cpu_ms_per_request"] = median(_cpu_ms(one, phase) for one in done)
    roles = dict.fromkeys(role for one in done for role in one.phases[phase.name].cpu_s)
    costs = {r: median(_role_us(one, phase, r) / 1000 for one in done) for r in roles}
    row |= {f"cpu_ms: {r}": ms for r, ms in costs.items() if ms and ms > NOTHING_MS}
    row["requests"] = sum(m.figures["requests"] for m in measured)
    row["errors"] = sum(m.figures["errors"] for m in measured)
    if faults := [fault for m in measured for fault in m.faults]:
        row["reason"] = f"some streams failed: {faults[0][:200]}"
    return row


def hop_rows(systems: Sequence[System], rounds: Rounds) -> list[dict[str, Any]]:
    """What each hop costs, by role of process: CPU per request and per chunk (a chunk is one
    output token), solved from the two workloads ``cost(32 tokens)`` and ``cost(1 token)``. What
    a process spends when nobody asks it anything is shown beside it, not taken off: an engine
    that polls when idle does not do so on top of its work."""
    rows = []
    for system in systems:
        done = list(rounds.get(system.key, {}).values())
        costs = {role: [_hop(one, role) for one in done] for role in _roles(done)}
        for role, hops in costs.items():
            whole_ms = median(hop[2] for hop in hops)
            if whole_ms is None or whole_ms < NOTHING_MS:
                continue
            row = {
                "table": "what each hop costs (CPU)",
                "system": system.title,
                "hop": role,
                "us_per_request": median(hop[0] for hop in hops),
                "us_per_chunk": median(hop[1] for hop in hops),
                "cpu_ms_per_request_of_32_tokens": whole_ms,
                "idle_cpu_percent_of_a_core": median(
                    one.idle_cpu_share.get(role, 0.0) * 100 for one in done
                ),
                "pss_mb": median(one.memory[role].pss_mb for one in done if role in one.memory),
            }
            rows.append(row)
    return rows


def marks(rounds: Rounds, missing: Mapping[str, str]) -> list[Mark]:
    """The targets; each value is the median of the rounds' own ratios."""
    by_round = _Comparison(rounds, missing)
    bare, vllm, alone = "weir / faster vLLM server", ("b", "a1", "a2"), ("weir", "none")

    def speeds(over: str, under: str) -> Callable[[int], float]:
        return lambda number: _ratio(by_round.speed(over, number), by_round.speed(under, number))

    def against_vllm(phase: Phase) -> Callable[[int], float]:
        return lambda number: by_round.against_vllm(number, phase)

    def spoken(key: str, phase: Phase) -> Callable[[int], float]:
        return lambda number: _ratio(
            by_round.speed(key, number, phase), by_round.speed(key, number, FULL)
        )

    def added(phase: Phase) -> Callable[[int], float]:
        return lambda number: (
            by_round.ttft("weir", number, phase) - by_round.ttft("none", number, phase)
        )

    full, one = "req/s at 32 streams", "TTFT p50 at 1 stream"
    gateway = "weir gateway alone"
    targets: tuple[tuple[str, Sequence[str], Callable[[int], float], str, float], ...] = (
        (f"{bare}, {full}", vllm, against_vllm(FULL), "x", 1.00),
        *((f"{bare}, {full}, {k.name}", vllm, against_vllm(k), "x", 1.00) for k in KINDS),
        *(
            (f"weir in {k.name} / in chat, {full}", ("b",), spoken("b", k), "x", 0.95)
            for k in SPOKEN
        ),
        *(
            (f"{gateway} in {k.name} / in chat, {full}", ("weir",), spoken("weir", k), "x", 0.95)
            for k in SPOKEN
        ),
        (f"weir - faster vLLM server, {one}", vllm, by_round.added_ttft, "ms", 1.0),
        (f"weir / Ray Serve LLM default, {full}", ("b", "c"), speeds("b", "c"), "x", 2.3),
        (f"{gateway} / nothing, {full}", alone, speeds("weir", "none"), "x", 0.98),
        (f"{gateway} - nothing, {one}", alone, added(ALONE), "ms", 3.0),
        (f"{gateway} - nothing, TTFT p50 at 32 streams", alone, added(FULL), "ms", 5.0),
    )
    return [by_round.mark(*target) for target in targets]


_VLLM = ("a1", "a2")


class _Comparison:
    """Figures of one round against each other; NaN where one of them is missing."""

    def __init__(self, rounds: Rounds, missing: Mapping[str, str]) -> None:
        self._rounds = rounds
        self._missing = missing

    def speed(self, key: str, number: int, phase: Phase = FULL) -> float:
        measured = self._rounds[key][number].phases.get(phase.name)
        return float("nan") if measured is None else float(measured.figures["req_per_s"])

    def ttft(self, key: str, number: int, phase: Phase) -> float:
        value = self._rounds[key][number].phases[phase.name].figures["ttft_ms_p50"]
        return float("nan") if value is None else float(value)

    def against_vllm(self, number: int, phase: Phase) -> float:
        speed = partial(self.speed, phase=phase)
        bare = max(_VLLM, key=lambda key: self._over_rounds(key, speed, 0.0))
        return _ratio(self.speed("b", number, phase), self.speed(bare, number, phase))

    def added_ttft(self, number: int) -> float:
        ttft = partial(self.ttft, phase=ALONE)
        bare = min(_VLLM, key=lambda key: self._over_rounds(key, ttft, math.inf))
        return self.ttft("b", number, ALONE) - self.ttft(bare, number, ALONE)

    def _over_rounds(self, key: str, figure: Callable[[str, int], float], none: float) -> float:
        """The median: whoever is ahead in one round only is not the faster server."""
        found = [one for number in self._rounds[key] if (one := figure(key, number)) == one]
        return none if (middle := median(found)) is None else middle

    def mark(
        self,
        name: str,
        keys: Sequence[str],
        value: Callable[[int], float],
        unit: str,
        target: float,
    ) -> Mark:
        better: Any = "lower" if unit == "ms" else "higher"
        numbers = set.intersection(*(set(self._rounds.get(key, {})) for key in keys))
        found = [one for number in sorted(numbers) if (one := value(number)) == one]
        if not found:
            gone = next((key for key in keys if not self._rounds.get(key)), keys[0])
            reason = self._missing.get(gone, "not measured in this run")
            if numbers:
                gone, reason = " or ".join(keys), "no stream was complete within the window"
            return Mark(name, None, unit, target, better, f"{gone}: {reason[:200]}")
        return Mark(name, median(found), unit, target, better)


def _ratio(over: float, under: float) -> float:
    return over / under if under else float("nan")


def _figures(done: Sequence[Round]) -> dict[str, Any]:
    row: dict[str, Any] = {
        name: _median([one.phases[phase.name].figures[key] for one in done])
        for name, phase, key in COLUMNS
    }
    full = [one.phases[FULL.name] for one in done]
    all_phases = [measured for one in done for measured in one.phases.values()]
    row |= {
        "cpu_ms_per_request": median(_cpu_ms(one, FULL) for one in done),
        "pss_mb": median(sum(m.pss_mb for m in one.memory.values()) for one in done),
        "rss_mb": median(sum(m.rss_mb for m in one.memory.values()) for one in done),
        "processes": median(sum(m.processes for m in one.memory.values()) for one in done),
        "seconds_to_ready": median(one.seconds_to_ready for one in done),
        "idle_cpu_percent_of_a_core": median(
            sum(one.idle_cpu_share.values()) * 100 for one in done
        ),
        "generator_cpu_percent_of_a_core": median(m.generator_cpu_share * 100 for m in full),
        "rounds": len(done),
        "requests": sum(measured.figures["requests"] for measured in all_phases),
        "errors": sum(measured.figures["errors"] for measured in all_phases),
    }
    if faults := [fault for measured in all_phases for fault in measured.faults]:
        row["reason"] = f"some streams failed: {faults[0][:200]}"
    return row


def _roles(done: Sequence[Round]) -> list[str]:
    return list(dict.fromkeys(role for one in done for role in one.phases[FULL.name].cpu_s))


def _hop(one: Round, role: str) -> tuple[float, float, float]:
    """(us per request, us per chunk, ms per request of the full workload)."""
    full_us = _role_us(one, FULL, role)
    single_us = _role_us(one, ONE_TOKEN, role)
    per_chunk = (full_us - single_us) / (FULL.tokens - ONE_TOKEN.tokens)
    return single_us - ONE_TOKEN.tokens * per_chunk, per_chunk, full_us / 1000


def _role_us(one: Round, phase: Phase, role: str) -> float:
    measured = one.phases[phase.name]
    return measured.cpu_s.get(role, 0.0) * 1e6 / max(1, measured.complete)


def _cpu_ms(one: Round, phase: Phase) -> float:
    measured = one.phases[phase.name]
    return sum(measured.cpu_s.values()) * 1000 / max(1, measured.complete)


def _median(values: Sequence[float | None]) -> float | None:
    return median(value for value in values if value is not None)
