"""One simulated engine: continuous batching, chunked prefill, prefix cache, preemption.

It follows vLLM 0.29's scheduler: every step first gives each decoding sequence one token and
each unfinished prompt what is left of the token budget, then admits waiting requests while there
is budget, a free place and KV space for the whole prompt; when a decoding sequence needs a block
and there is none, the lowest-priority (or last admitted) one is preempted and recomputed later.

A prompt that is computed for another engine keeps its blocks until that one has them. The other one
admits the request once it has KV for the whole prompt, fetches the blocks that it does not hold,
and computes the last token, as vLLM's NIXL connector does: the first token is its.

Steps in which nothing but decoding happens are taken together: one event for as many of them as
pass until a sequence ends, memory runs out or a request arrives.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Protocol

from load_tests.sim.blocks import BlockPool, KvOp
from load_tests.sim.decoding import DecodeSet
from load_tests.sim.events import EventQueue
from load_tests.sim.pausing import Paused
from load_tests.sim.request import SimRequest
from load_tests.sim.timing import StepTiming
from router.admission.engine_priority import engine_urgency
from router.yielding import SHORT_PART


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """``priority_scheduling`` is vLLM's ``--scheduling-policy priority`` (lower runs first);
    ``yields`` is weir's scheduler on top of it (:mod:`deployments.yielding`): while a prompt of an
    earlier class is computed or could be, prompts of later classes pause between two chunks."""

    blocks: int
    block_size: int
    max_batched_tokens: int = 2048
    max_sequences: int = 256
    priority_scheduling: bool = False
    yields: bool = False


class Listener(Protocol):
    """Whoever wants to know what happens in an engine."""

    def first_token(self, request: SimRequest) -> None:
        """The prompt is computed and the first token is out."""

    def finished(self, request: SimRequest) -> None:
        """The last token is out."""

    def stepped(self, replica: int) -> None:
        """A yielding engine ended a step that put out tokens."""

    def prompt_ready(self, request: SimRequest) -> None:
        """A prompt for another engine is computed; its blocks are kept."""

    def fetch(self, request: SimRequest, tokens: int) -> None:
        """A request needs the blocks of that many tokens from the engine that has its prompt."""

    def kv_changed(self, replica: int, ops: list[KvOp]) -> None:
        """Blocks appeared and disappeared during the step that just ended."""


class Engine:
    """A replica. ``submit`` requests; the listener hears of tokens and blocks."""

    def __init__(
        self,
        index: int,
        config: EngineConfig,
        timing: StepTiming,
        queue: EventQueue,
        listener: Listener,
        log_kv: bool = False,
    ) -> None:
        self.index = index
        self.config = config
        self.timing = timing
        self.pool = BlockPool(config.blocks, log_kv)
        self.decoding = DecodeSet(config.block_size)
        self.paused = Paused()
        self.prefilling: list[SimRequest] = []
        self.busy_s = 0.0
        self.prefill_tokens = 0
        self.decode_tokens = 0
        self.preemptions = 0
        self._queue = queue
        self._listener = listener
        self._waiting: list[tuple[float, float, int, SimRequest]] = []
        self._order = 0
        self._chunks: list[tuple[SimRequest, int]] = []
        self._steps = 0  # of the event under way; 0: idle
        self._began_s = 0.0
        self._version = 0
        self._memory_short = False
        self._kept = 0  # prompts kept for others
        self._fetching: set[int] = set()
        self._reserved = 0  # blocks that the decoding sequences take in the step being composed

    # What others may look at.

    @property
    def running(self) -> int:
        """Sequences admitted: fetching, prefilling or decoding."""
        return len(self.prefilling) + len(self.decoding) + len(self.paused) + len(self._fetching)

    @property
    def waiting(self) -> int:
        """Requests in the engine's own queue."""
        return len(self._waiting)

    def waiting_requests(self) -> list[SimRequest]:
        """The engine's queue, in no order."""
        return [entry[3] for entry in self._waiting]

    # What the world does to it.

    def submit(self, request: SimRequest) -> None:
        """Queue a request; an idle engine starts at once, a decoding one after this step."""
        request.replica = self.index
        self._enqueue(request, resumed=False)
        if self._memory_short and self._steps > 1 and not self.config.priority_scheduling:
            return
        if self.running < self.config.max_sequences or self._steps == 0:
            self._look_again()

    def fetched(self, request: SimRequest) -> None:
        """The blocks that a request waited for are here."""
        self._fetching.discard(request.index)
        request.fetches = False
        self._store(request, request.prefill_done)
        self.prefilling.append(request)
        self._look_again()

    def release_prompt(self, request: SimRequest) -> None:
        """The other engine has the blocks of a prompt that was kept for it."""
        self._kept -= 1
        self._release(request)
        if self._waiting:
            self._look_again()

    def _look_again(self) -> None:
        if self._steps == 0:
            self._start()
        elif self._steps > 1:
            self._cut_short()

    def _enqueue(self, request: SimRequest, resumed: bool) -> None:
        self._order += 1
        if self.config.priority_scheduling:
            key: tuple[float, float] = (request.priority, request.arrival_s)
        else:
            key = (-1.0 if resumed else 0.0, -self._order if resumed else 0.0)
        heapq.heappush(self._waiting, (*key, self._order, request))

    def _cut_short(self) -> None:
        """End the run of decode steps at the next step's end."""
        decoding = self.decoding
        elapsed = self._queue.now_s - self._began_s
        steps = self.timing.steps_in(elapsed, len(decoding), decoding.context)
        if steps < self._steps:
            self._schedule(steps, self.timing.decode_s(steps, len(decoding), decoding.context))

    def _schedule(self, steps: int, duration_s: float) -> None:
        self._steps = steps
        self._version += 1
        self._queue.at(self._began_s + duration_s, self._end, self._version)

    # One event: begin a step (or many), end it.

    def _start(self) -> None:
        """Compose the next step and schedule its end; go idle when there is nothing to do."""
        self._began_s = self._queue.now_s
        decoding = self.decoding
        self.paused.resume(decoding)
        preempted = self._make_room() if len(decoding) else False
        self._reserved = decoding.growth(1)
        tokens, attended = self._urgent_prefill(preempted) if self.config.yields else (0, 0.0)
        if not tokens:
            budget = self.config.max_batched_tokens - len(decoding)
            tokens, attended = self._prefill(budget, preempted, None)
        if tokens:
            duration = self.timing.step_s(tokens, attended, len(decoding), decoding.context)
            self._schedule(1, duration)
        elif len(decoding):
            # After a preemption nothing was admitted; the next step looks again.
            steps = 1 if preempted else decoding.run_length(self.pool.available)
            self._schedule(steps, self.timing.decode_s(steps, len(decoding), decoding.context))
        else:
            self._steps = 0
            if self._waiting and not self._kept and not self._fetching:
                raise RuntimeError(
                    f"a request of {self._waiting[0][3].prefill_target} tokens does not fit into "
                    f"{self.config.blocks} blocks of {self.config.block_size}"
                )

    def _end(self, version: int) -> None:
        """The step (or run of steps) is over: tokens come out, sequences end."""
        if version != self._version:
            return
        steps, self._steps = self._steps, 1  # a listener that submits sees a step about to end
        self.busy_s += self._queue.now_s - self._began_s
        decoding = self.decoding
        if self.config.yields and (len(decoding) or self._first_tokens()):
            self._listener.stepped(self.index)
        if len(decoding):
            self.decode_tokens += steps * len(decoding)
            self.pool.allocate(decoding.growth(steps))
            for request in decoding.advance(steps):
                self._finish(request)
        chunks, self._chunks = self._chunks, []
        for request, tokens in chunks:
            request.prefill_done += tokens
            if request.prefill_done >= request.prefill_target:
                self._prefill_over(request)
        if self.pool.log:
            ops, self.pool.log = self.pool.log, []
            self._listener.kv_changed(self.index, ops)
        self._start()

    def _first_tokens(self) -> bool:
        """Whether the step that ends completes a prompt."""
        return any(r.prefill_done + tokens >= r.prefill_target for r, tokens in self._chunks)

    # Prefill.

    def _urgent_prefill(self, preempted: bool) -> tuple[int, float]:
        """The prompts of the first class that has one, everything of later classes paused, if there
        is something to pause: (tokens, pairs), or nothing."""
        paused, decoding = self.paused, self.decoding
        head = [self._waiting[0][3]] if self._waiting else []
        urgent = paused.most_urgent([*self.prefilling, *head], decoding)
        if urgent is None:
            return 0, 0.0
        paused.hold(decoding, urgent)
        self._reserved = decoding.growth(1)
        budget = self.config.max_batched_tokens - len(decoding)
        done = self._finish_short(budget, urgent) or self._prefill(budget, preempted, urgent)
        if done[0]:
            paused.steps += 1
        else:
            paused.resume(decoding)
            paused.steps = 0
        return done

    def _finish_short(self, budget: int, urgent: int) -> tuple[int, float] | None:
        """Prompts of the class ``urgent`` of which little is left go alone: filled up, the step
        would keep their first token back for many times as long."""
        tokens, attended = 0, 0.0
        for request in self.prefilling:
            left = request.prefill_target - request.prefill_done
            if engine_urgency(request.priority) <= urgent and tokens + left <= budget // SHORT_PART:
                attended += self._chunk(request, left)
                tokens += left
        return (tokens, attended) if tokens else None

    def _prefill(self, budget: int, preempted: bool, only: int | None) -> tuple[int, float]:
        """Go on with prompts and admit new ones (of the class ``only``): (tokens, pairs)."""
        tokens, attended = self._continue_prefills(budget, only)
        if not preempted or not self.running:
            more = self._admit(budget - tokens, only)
            tokens, attended = tokens + more[0], attended + more[1]
        return tokens, attended

    def _continue_prefills(self, budget: int, only: int | None) -> tuple[int, float]:
        tokens = 0
        attended = 0.0
        for request in self.prefilling:
            if only is not None and engine_urgency(request.priority) > only:
                continue
            chunk = min(request.prefill_target - request.prefill_done, budget - tokens)
            if chunk <= 0:
                break
            attended += self._chunk(request, chunk)
            tokens += chunk
        return tokens, attended

    def _admit(self, budget: int, only: int | None) -> tuple[int, float]:
        tokens = 0
        attended = 0.0
        self._memory_short = False
        while self._waiting and tokens < budget and self.running < self.config.max_sequences:
            request = self._waiting[0][3]
            if only is not None and engine_urgency(request.priority) > only:
                break
            if not self._place(request):
                self._memory_short = True
                break
            heapq.heappop(self._waiting)
            self._order += 1
            request.admitted = self._order
            if request.fetches:
                self._fetch(request)
                continue
            self.prefilling.append(request)
            chunk = min(request.prefill_target - request.prefill_done, budget - tokens)
            attended += self._chunk(request, chunk)
            tokens += chunk
        return tokens, attended

    def _place(self, request: SimRequest) -> bool:
        """Take cached blocks and allocate the rest of the prompt's; False: no space."""
        size = self.config.block_size
        pool = self.pool
        hashes = request.trace.block_hashes
        usable = min(len(hashes), (request.prefill_target - 1) // size)
        hits = pool.match(hashes[:usable] if usable < len(hashes) else hashes)
        held = hashes[:hits]
        new = -(-request.prefill_target // size) - hits
        if new + pool.resting(held) > pool.available - self._reserved:
            return False
        pool.take(held)
        pool.allocate(new)
        request.prefill_done = hits * size
        request.kv_tokens = 0
        request.stored = hits
        if request.first_token_s is None and not request.preemptions and not request.fetches:
            request.cached_tokens = hits * size
        return True

    def _fetch(self, request: SimRequest) -> None:
        tokens = request.prefill_target - request.prefill_done
        request.prefill_done = request.prefill_target - 1
        self._fetching.add(request.index)
        self._listener.fetch(request, tokens)

    def _chunk(self, request: SimRequest, tokens: int) -> float:
        """Schedule ``tokens`` of a prompt; its full blocks can be shared from now on, as in
        vLLM, which hashes blocks when it schedules them."""
        done = request.prefill_done
        self._chunks.append((request, tokens))
        self.prefill_tokens += tokens
        request.work_tokens += tokens
        self._store(request, done + tokens)
        return tokens * (done + tokens / 2)

    def _store(self, request: SimRequest, tokens: int) -> None:
        """Its full blocks up to ``tokens`` can be shared from now on."""
        hashes = request.trace.block_hashes
        full = min(len(hashes), tokens // self.config.block_size)
        if full > request.stored:
            parent = hashes[request.stored - 1] if request.stored else None
            self.pool.store(hashes[request.stored : full], parent)
            request.stored = full

    def _prefill_over(self, request: SimRequest) -> None:
        self.prefilling.remove(request)
        request.kv_tokens = request.prefill_target
        request.generated += 1
        if request.hands_over:
            self._kept += 1
            self._listener.prompt_ready(request)
            return
        if request.first_token_s is None:
            request.first_token_s = self._queue.now_s
            self._listener.first_token(request)
        left = request.trace.output_tokens - request.generated
        if left > 0:
            self.decoding.add(request, left)
        else:
            self._finish(request)

    # Ends.

    def _finish(self, request: SimRequest) -> None:
        self._release(request)
        request.generated = request.trace.output_tokens
        request.finish_s = self._queue.now_s
        self._listener.finished(request)

    def _release(self, request: SimRequest) -> None:
        size = self.config.block_size
        stored = request.stored
        held = -(-max(request.kv_tokens, request.prefill_target) // size)
        full = request.kv_tokens // size
        hashes = request.trace.block_hashes[:stored]
        self.pool.release(hashes, held - stored, max(0, full - stored))
        request.stored = 0

    def _make_room(self) -> bool:
        """Preempt until every decoding sequence can take its next token."""
        preempted = False
        while self.decoding.growth(1) > self.pool.available:
            victim = self._victim()
            if victim in self.prefilling:
                self.prefilling.remove(victim)
            else:
                self.decoding.remove(victim)
                victim.kv_tokens = self.decoding.kv_tokens(victim)
                victim.generated = self.decoding.generated(victim)
            self._release(victim)
            victim.preemptions += 1
            self.preemptions += 1
            victim.prefill_done = 0
            victim.prefill_target = victim.trace.prompt_tokens + victim.generated
            self._enqueue(victim, resumed=True)
            preempted = True
        return preempted

    def _victim(self) -> SimRequest:
        candidates = self.prefilling + self.decoding.requests()  # nothing is paused here
        if self.config.priority_scheduling:
            return max(candidates, key=lambda request: (request.priority, request.arrival_s))
        return max(candidates, key=lambda request: request.admitted)
