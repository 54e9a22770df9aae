"""A request on its way through a replica: routed, retried while nothing was sent, streamed."""

from __future__ import annotations

import time

from deployments import wire
from deployments.gateway.answers import DONE, Answer, ChatAnswer, Counts, TextAnswer
from deployments.gateway.exchange import Exchange
from deployments.gateway.models import ServedModel
from deployments.gateway.replicas import Output, TokenStream
from deployments.gateway.requests import ChatBody
from deployments.gateway.steps import Body
from router.admission import Ticket
from router.ledger import Reservation
from weir.errors import NoReplicaError, ReplicaFailedError
from weir.metrics import GatewayMetrics


class Flight:
    """Owns one token stream of an admitted request; :meth:`land` ends it in any case."""

    def __init__(
        self,
        model: ServedModel,
        ticket: Ticket[Reservation],
        exchange: Exchange,
        attempts: int,
    ) -> None:
        self._model = model
        self._ticket = ticket
        self._exchange = exchange
        self._attempts = attempts
        self._stream: TokenStream | None = None

    @property
    def replica_id(self) -> str:
        """Where it runs now."""
        return self._ticket.grant.replica_id

    async def take_off(self, submit: wire.Submit, metrics: GatewayMetrics) -> Output:
        """Submit and wait for the first output; another replica if one fails before it.

        Raises:
            WeirError: the request is at fault, or no replica could take it.
        """
        failed: set[str] = set()
        while True:
            try:
                connection = await self._model.connection(self._ticket.grant)
                self._stream = connection.submit(lambda number: _numbered(submit, number))
                return await self.next()
            except ReplicaFailedError as failure:
                failed.add(self.replica_id)
                self.land()
                if len(failed) >= self._attempts:
                    raise
                try:
                    self._ticket.move(failed)
                except NoReplicaError:
                    raise failure from None
                metrics.retries.labels(self._model.name).inc()

    async def stream(self, first: Output, answer: Answer, usage: bool) -> None:
        """Write the answer as server-sent events."""
        exchange = self._exchange
        await exchange.begin_stream()
        output = first
        while isinstance(output, wire.Chunk):
            if output.text:
                await exchange.send_event(answer.chunk(output.text, None))
            output = await self.next()
        last = answer.chunk(output.text, output.finish_reason)
        if usage:
            last += answer.usage_chunk(exchange.usage)
        await exchange.end_stream(last + DONE)

    async def collect(self, first: Output, answer: Answer) -> None:
        """Write the answer as one JSON object."""
        exchange = self._exchange
        texts = [first.text]
        output = first
        while isinstance(output, wire.Chunk):
            output = await self.next()
            texts.append(output.text)
        body = answer.whole("".join(texts), output.finish_reason, exchange.usage)
        await exchange.answer(200, body)

    def land(self) -> None:
        """Have the engine free the sequence, if the stream has not ended."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def next(self) -> Output:
        """The next output; what it cost is counted.

        Raises:
            WeirError: the replica failed.
        """
        assert self._stream is not None
        output = await self._stream.next()
        if isinstance(output, wire.Done) and output.finish_reason == "abort":
            raise ReplicaFailedError("The replica stopped in the middle of the request.")
        cached = output.cached_tokens if isinstance(output, wire.Done) else 0
        self._ticket.progress(len(output.tokens), cached)
        self._count(output)
        return output

    def _count(self, output: Output) -> None:
        # Kept current, so that a stream that breaks off is billed for what it delivered.
        if isinstance(output, wire.Done):
            self._exchange.counts = Counts(
                output.prompt_tokens, output.cached_tokens, output.output_tokens
            )
            return
        before = self._exchange.counts.output_tokens
        self._exchange.counts = Counts(
            self._ticket.request.prompt_tokens, 0, before + len(output.tokens)
        )


def answer_for(body: Body, exchange: Exchange) -> Answer:
    """The writer of the endpoint's answers."""
    kind = ChatAnswer if isinstance(body, ChatBody) else TextAnswer
    return kind(exchange.request_id, body.model, int(time.time()))


def submission(
    ticket: Ticket[Reservation],
    request_id: str,
    prompt: list[int],
    salt: str,
    body: Body,
    logprobs: bool = False,
) -> wire.Submit:
    """What the replica is asked for (the stream number is filled in by the connection)."""
    request = ticket.request
    sampling = wire.Sampling(
        max_tokens=request.max_output_tokens,
        min_tokens=min(body.min_tokens, request.max_output_tokens),
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=body.stop_list,
        stop_token_ids=body.stop_token_ids,
        ignore_eos=body.ignore_eos,
        skip_special_tokens=body.skip_special_tokens,
        include_stop_str_in_output=body.include_stop_str_in_output,
    )
    return wire.Submit(0, request_id, prompt, sampling, ticket.priority, salt, None, logprobs)


def _numbered(submit: wire.Submit, number: int) -> wire.Submit:
    return wire.Submit(
        number,
        submit.request_id,
        submit.prompt,
        submit.sampling,
        submit.priority,
        submit.cache_salt,
        submit.adapter,
        submit.logprobs,
    )
