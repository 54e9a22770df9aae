"""From answers to rows and marks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from load_tests.migration.answers import Answer, seam_gaps_s
from load_tests.report import Mark, percentile

CALM, KILL, STOP = "no faults", "SIGKILL", "SIGSTOP"


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of one world. ``faults``: when, and to which replica. ``counted``: what the
    gateway's counters gained. ``without_replica_s``, ``times_without``: no replica was up."""

    name: str
    start_s: float
    window_s: float
    answers: Sequence[Answer]
    faults: Sequence[tuple[float, str]]
    skipped_faults: int
    without_replica_s: float
    times_without: int
    counted: Mapping[str, float]
    generator_cpu_s: float


def row(world: str, phase: Phase, expected: Mapping[int, str]) -> dict[str, Any]:
    """The figures of a phase. ``expected``: each prompt's text in the undisturbed run."""
    good = [a for a in phase.answers if a.error is None]
    bad = [a for a in phase.answers if a.error is not None]
    equal = [a for a in good if a.text == expected[a.prompt]]
    end_s = phase.start_s + phase.window_s
    in_time = [a for a in equal if a.done_s <= end_s]
    ttft_s = [a.arrivals_s[0] - a.sent_s for a in good]
    figures: dict[str, Any] = {
        "system": phase.name,
        "table": world,
        "requests": len(phase.answers),
        "errors": len(bad),
        "errors_after_output": sum(a.begun for a in bad),
        "equal_to_undisturbed_ratio": len(equal) / len(good) if good else None,
        "unequal": len(good) - len(equal),
        "faults": len(phase.faults),
        "faults_left_out_for_no_replica": phase.skipped_faults,
        "no_replica_up_s": phase.without_replica_s,
        "no_replica_up_times": phase.times_without,
        **_gaps(good, phase.faults),
        "moves": phase.counted.get("weir_stream_moves_total", 0.0),
        "moves_off_draining": phase.counted.get("weir_stream_moves_total drain", 0.0),
        "retries_before_output": phase.counted.get("weir_dispatch_retries_total", 0.0),
        "tokens_computed_twice": phase.counted.get("weir_recomputed_tokens_total", 0.0),
        "completed_req_per_s": len([a for a in good if a.done_s <= end_s]) / phase.window_s,
        "goodput_tokens_per_s": sum(a.output_tokens for a in in_time) / phase.window_s,
        "ttft_ms_p50": _ms(percentile(ttft_s, 50)),
        "ttft_ms_p99": _ms(percentile(ttft_s, 99)),
        "generator_cpu_percent_of_a_core": 100 * phase.generator_cpu_s / phase.window_s,
        "window_s": phase.window_s,
    }
    if bad:
        kinds = Counter(_kind(a) for a in bad).most_common(4)
        figures["reason"] = "; ".join(f"{count} x {kind}" for kind, count in kinds)
    return figures


def marks(world: str, phase: Phase, figures: Mapping[str, Any]) -> list[Mark]:
    """The targets of a phase with faults."""
    if phase.name == CALM:
        return []
    ratio, none = figures["equal_to_undisturbed_ratio"], None
    if ratio is None:
        none = "no stream was complete"
    return [
        Mark(f"{world}, {phase.name}: client-visible errors", figures["errors"], "", 0, "lower"),
        Mark(f"{world}, {phase.name}: greedy streams equal to the undisturbed run", ratio, "ratio",
             1.0, "higher", none),
    ]  # fmt: skip


def _gaps(good: Sequence[Answer], faults: Sequence[tuple[float, str]]) -> dict[str, Any]:
    seams = seam_gaps_s(good, faults)
    gaps = [gap for answer in good for gap in answer.gaps_s]
    return {
        "seams_seen": len(seams),
        "gap_at_seam_ms_p50": _ms(percentile(seams, 50)),
        "gap_at_seam_ms_p99": _ms(percentile(seams, 99)),
        "gap_at_seam_ms_max": _ms(max(seams, default=None)),
        "gap_ms_p50": _ms(percentile(gaps, 50)),
        "gap_ms_p99": _ms(percentile(gaps, 99)),
        "gap_ms_max": _ms(max(gaps, default=None)),
    }


def _kind(answer: Answer) -> str:
    when = "after output" if answer.begun else "before output"
    return f"{when}: {(answer.error or '')[:110]}"


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
