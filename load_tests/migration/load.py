"""Closed-loop streams whose answers are kept: each prompt once, or for a time."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from load_tests.loadgen import Target
from load_tests.loadgen.connection import StreamConnection
from load_tests.migration.answers import Answer, AnswerWatch

DRAIN_TIMEOUT_S = 240.0
#: After an error a stream waits as long as a client that minds Retry-After would.
PAUSE_AFTER_ERROR_S = 1.0
_CONNECT_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Question:
    """A request's bytes, and how many output tokens make it complete."""

    data: bytes
    tokens: int


class StreamLoad:
    """``streams`` requests under way at all times."""

    def __init__(self, target: Target, questions: Sequence[Question], streams: int) -> None:
        self._target = target
        self._questions = questions
        self._streams = streams
        self._numbers: Iterator[int] = iter(())
        self._answers: list[Answer] = []
        self._connections: dict[int, StreamConnection[Answer]] = {}
        self._over = asyncio.Event()

    async def each_once(self) -> list[Answer]:
        """Every question once."""
        return await self._run(iter(range(len(self._questions))))

    async def for_s(self, seconds: float) -> list[Answer]:
        """Questions again and again for so long; what is under way then is answered to its end."""
        end_s = time.monotonic() + seconds
        numbers = itertools.cycle(range(len(self._questions)))
        return await self._run(itertools.takewhile(lambda _: time.monotonic() < end_s, numbers))

    async def _run(self, numbers: Iterator[int]) -> list[Answer]:
        self._numbers, self._answers, self._over = numbers, [], asyncio.Event()
        tasks = []
        for number in range(self._streams):
            tasks.append(asyncio.create_task(self._stream(number)))
            await asyncio.sleep(0)
        await self._over.wait()
        _, pending = await asyncio.wait(tasks, timeout=DRAIN_TIMEOUT_S)
        for connection in list(self._connections.values()):
            connection.give_up(f"not complete {DRAIN_TIMEOUT_S:.0f} s after the load's end")
        if pending:
            await asyncio.wait(pending, timeout=5)
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return self._answers

    async def _stream(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._over.is_set():
            asked_s = time.monotonic()
            try:
                _, connection = await loop.create_connection(
                    self._connection, self._target.host, self._target.port
                )
            except OSError as error:
                fault = f"cannot connect: {error}"
                self._answers.append(Answer(-1, asked_s, time.monotonic(), error=fault))
                await asyncio.sleep(PAUSE_AFTER_ERROR_S)
                continue
            self._connections[number] = connection
            await connection.closed.wait()
            del self._connections[number]
            await asyncio.sleep(PAUSE_AFTER_ERROR_S if connection.failed else _CONNECT_PAUSE_S)

    def _connection(self) -> StreamConnection[Answer]:
        return StreamConnection(self._next_request, self._report, time.monotonic)

    def _report(self, answer: Answer) -> None:
        self._answers.append(answer)

    def _next_request(self) -> tuple[bytes, Callable[[float], AnswerWatch]] | None:
        number = next(self._numbers, None)
        if number is None:
            self._over.set()
            return None
        question = self._questions[number]
        return question.data, lambda sent_s: AnswerWatch(number, question.tokens, sent_s)
