"""One request on its way through a simulation."""

from __future__ import annotations

from load_tests.traces.schema import TraceRequest


class SimRequest:
    """What happened to a trace's request. Times are simulated seconds; None: not yet."""

    __slots__ = (
        "admitted",
        "arrival_s",
        "cached_tokens",
        "deadline_s",
        "decode_from",
        "dispatched_s",
        "fetches",
        "finish_s",
        "first_token_s",
        "generated",
        "hands_over",
        "index",
        "kv_tokens",
        "note",
        "paired",
        "preemptions",
        "prefill_done",
        "prefill_target",
        "priority",
        "replica",
        "shed_reason",
        "stored",
        "trace",
        "work_tokens",
    )

    def __init__(self, index: int, trace: TraceRequest, arrival_s: float) -> None:
        self.index = index
        self.trace = trace
        self.arrival_s = arrival_s
        self.deadline_s: float | None = None
        self.dispatched_s: float | None = None
        self.first_token_s: float | None = None
        self.finish_s: float | None = None
        self.shed_reason: str | None = None
        self.replica = -1
        self.priority = 0
        self.cached_tokens = 0
        self.preemptions = 0
        self.paired = False  # one engine computes the prompt, another one the answer
        self.note: object = None  # a system's own mark
        self.hands_over = False  # only the prompt is computed here; its blocks are kept for another
        self.fetches = False  # the prompt's blocks come from another engine
        # The engine's:
        self.admitted = 0
        self.generated = 0
        self.prefill_done = 0
        self.prefill_target = trace.prompt_tokens
        self.stored = 0
        self.kv_tokens = 0
        self.decode_from = 0
        self.work_tokens = 0

    @property
    def ttft_s(self) -> float | None:
        """Arrival to first token."""
        return None if self.first_token_s is None else self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float | None:
        """Mean time per token after the first; 0 for a single token."""
        if self.finish_s is None or self.first_token_s is None:
            return None
        tokens = self.trace.output_tokens - 1
        return (self.finish_s - self.first_token_s) / tokens if tokens > 0 else 0.0
