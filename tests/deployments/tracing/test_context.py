"""W3C's Trace Context, and which traces are sampled."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deployments.gateway.tracing.context import Contexts, read_parent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = [
    f"00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-00",
    f"00-{TRACE}-{SPAN}-ff",
    f" 00-{TRACE}-{SPAN}-01 ",
    f"cc-{TRACE}-{SPAN}-01",
    f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
    f"cc-{TRACE}-{SPAN}-01.what-the-future",
    f"00-{TRACE}-{SPAN}-01-what",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}",
    "",
    "00",
    "hello",
]


@pytest.mark.parametrize("given", GIVEN)
def test_a_parent_is_read_as_opentelemetry_reads_it(given: str) -> None:
    theirs = TraceContextTextMapPropagator().extract({"traceparent": given})
    context = get_current_span(theirs).get_span_context()
    parent = read_parent(given)
    assert (parent is not None) is context.is_valid
    if parent is not None:
        assert int(parent.trace_id, 16) == context.trace_id
        assert int(parent.span_id, 16) == context.span_id
        assert parent.sampled is context.trace_flags.sampled


def _headers(**given: str) -> Callable[[bytes], str | None]:
    return lambda name: given.get(name.decode())


def test_a_trace_goes_on_and_its_state_with_it() -> None:
    contexts = Contexts(0.0, "follow", random.Random(1))
    trace = contexts.begin(_headers(traceparent=GIVEN[0], tracestate="a=1"))
    assert (trace.trace_id, trace.parent_id, trace.state) == (TRACE, SPAN, "a=1")
    assert trace.sampled
    assert trace.response == f"00-{TRACE}-{trace.span_id}-01"
    assert trace.span_id not in (SPAN, trace.new_id())


@pytest.mark.parametrize(
    ("parents", "joins", "sampled"),
    [("follow", True, True), ("join", True, False), ("ignore", False, False)],
)
def test_what_a_clients_parent_is_good_for(parents: str, joins: bool, sampled: bool) -> None:
    contexts = Contexts(0.0, parents, random.Random(1))  # type: ignore[arg-type]
    trace = contexts.begin(_headers(traceparent=GIVEN[0]))
    assert (trace.trace_id == TRACE) is joins
    assert (trace.parent_id == SPAN) is joins
    assert trace.sampled is sampled
    assert not contexts.begin(_headers(traceparent=GIVEN[1])).sampled


def test_an_unsampled_parent_does_not_keep_ones_own_sample_away() -> None:
    contexts = Contexts(1.0, "follow", random.Random(1))
    assert contexts.begin(_headers(traceparent=GIVEN[1])).sampled


def test_who_sees_one_trace_samples_alike() -> None:
    """Gateways among themselves, and with OpenTelemetry's sampler of the same ratio: that reads
    eight more bits, so the two differ where the ratio falls into them."""
    ratio = 0.25
    ours, others = (Contexts(ratio, "join", random.Random(seed)) for seed in (1, 2))
    theirs = TraceIdRatioBased(ratio)
    rng, sampled = random.Random(3), 0
    for _ in range(4000):
        trace_id = f"{rng.getrandbits(64):016x}00{rng.getrandbits(56):014x}"
        header = _headers(traceparent=f"00-{trace_id}-{SPAN}-00")
        one = ours.begin(header).sampled
        assert one is others.begin(header).sampled
        sampled += one
        shifted = int(trace_id, 16) << 8
        assert one is (
            theirs.should_sample(None, shifted, "").decision is Decision.RECORD_AND_SAMPLE
        )
    assert 850 < sampled < 1150
