"""Requests of every kind that money has to be right for, and what their clients saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from load_tests.money.platform import MODEL

#: Of all requests, the part that each tenant asks.
SHARES = {
    "plain": 0.3,
    "counted": 0.2,
    "bounded": 0.1,
    "budgeted": 0.1,
    "spilling": 0.15,
    "cascading": 0.15,
}
MOST_TOKENS = 32
MOST_CHOICES = 2
_LEAST_TOKENS = 8
_STREAMED = 0.65
_BREAKS_OFF = 0.25
_TWO_CHOICES = 0.1
_TIMEOUT_S = 60.0
_WORDS = [
    "order",
    "parcel",
    "invoice",
    "refund",
    "address",
    "delivery",
    "voucher",
    "return",
    "label",
    "size",
]
#: A request of this mix generates about so many tokens.
USUAL_TOKENS = 22


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a tenant may use in all; None: anything."""

    output_tokens: int | None = None
    usd: float | None = None


def bounds_of(requests: int) -> dict[str, Bounds]:
    """Bounds that are reached at about half of the requests of their tenants."""
    half = requests / 2
    return {
        "bounded": Bounds(output_tokens=int(half * SHARES["bounded"] * USUAL_TOKENS)),
        "budgeted": Bounds(usd=round(half * SHARES["budgeted"] * USUAL_TOKENS * 10e-6, 6)),
    }


def tenants_of(requests: int) -> dict[str, dict[str, Any]]:
    """What is said of each tenant in the settings."""
    bounds = bounds_of(requests)
    return {
        "plain": {},
        "counted": {
            "quotas": {"output_tokens_per_day": 10**9, "concurrent_requests": 10**6},
            "budget": {"usd_per_month": 10**6},
        },
        "bounded": {"quotas": {"output_tokens_per_day": bounds["bounded"].output_tokens}},
        "budgeted": {
            "budget": {
                "usd_per_month": bounds["budgeted"].usd,
                "steps": [{"percent": 100, "actions": ["refuse"]}],
            }
        },
        "spilling": {
            "budget": {"usd_per_month": 0.01, "steps": [{"percent": 1, "actions": ["spill"]}]}
        },
        "cascading": {"fallback": {"require": ["cascade"]}},
    }


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``leaves_after``: its client goes after so many events of a stream."""

    number: int
    tenant: str
    text: str
    tokens: int
    choices: int = 1
    stream: bool = False
    leaves_after: int | None = None

    @property
    def id(self) -> str:
        """As the ledger has it."""
        return f"money-{self.number}"


def asks(count: int, seed: int) -> list[Ask]:
    """The whole mix, in the order in which it is asked."""
    rng = random.Random(seed)
    tenants = rng.choices(list(SHARES), list(SHARES.values()), k=count)
    return [_ask(number, tenant, rng) for number, tenant in enumerate(tenants)]


def _ask(number: int, tenant: str, rng: random.Random) -> Ask:
    words = rng.choices(_WORDS, k=rng.randint(4, 24))
    tokens = rng.randint(_LEAST_TOKENS, MOST_TOKENS)
    stream = rng.random() < _STREAMED
    leaves = stream and rng.random() < _BREAKS_OFF
    return Ask(
        number,
        tenant,
        f"{number}: {' '.join(words)}",
        tokens,
        MOST_CHOICES if rng.random() < _TWO_CHOICES else 1,
        stream,
        rng.randint(1, tokens) if leaves else None,
    )


@dataclass(slots=True)
class Seen:
    """What became of a request. ``status`` 0: no answer began. ``whole``: it came to its end, with
    the counts that its client was told."""

    ask: Ask
    status: int = 0
    whole: bool = False
    left: bool = False
    error: str = ""
    spill: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0

    @property
    def broken(self) -> bool:
        """It ended otherwise than its client wanted, without an answer that says why."""
        return not self.whole and not self.left and self.status in (0, 200)


class Clients:
    """Asks as the tenants do. ``in_flight``: by tenant, what is under way now."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        keys: Mapping[str, str],
        done: Callable[[], None],
    ) -> None:
        self._http = http
        self._url = f"{url}/v1/chat/completions"
        self._keys = keys
        self._done = done
        self.in_flight = dict.fromkeys(SHARES, 0)

    async def all(self, mix: Sequence[Ask], streams: int) -> list[Seen]:
        """So many at a time; in the order of the mix."""
        left, found = iter(mix), list[Seen]()

        async def one_by_one() -> None:
            for ask in left:
                self.in_flight[ask.tenant] += 1
                try:
                    found.append(await self._one(ask))
                finally:
                    self.in_flight[ask.tenant] -= 1
                self._done()

        await asyncio.gather(*(one_by_one() for _ in range(streams)))
        return sorted(found, key=lambda seen: seen.ask.number)

    async def _one(self, ask: Ask) -> Seen:
        seen = Seen(ask)
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": ask.text}],
            "max_tokens": ask.tokens,
            "n": ask.choices,
            "stream": ask.stream,
        }
        if ask.stream:
            body["stream_options"] = {"include_usage": True}
        headers = {"authorization": f"Bearer {self._keys[ask.tenant]}", "x-request-id": ask.id}
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async with self._http.post(self._url, json=body, headers=headers) as response:
                    seen.status = response.status
                    seen.spill = response.headers.get("x-weir-spill", "")
                    await (_events if ask.stream and seen.status == 200 else _whole)(response, seen)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            seen.error = seen.error or type(error).__name__
        return seen


async def _whole(response: aiohttp.ClientResponse, seen: Seen) -> None:
    answer = orjson.loads(await response.read())
    if seen.status != 200:
        seen.error = str(answer["error"].get("code"))
        return
    _count(answer["usage"], seen)


async def _events(response: aiohttp.ClientResponse, seen: Seen) -> None:
    events = 0
    async for line in response.content:
        if not line.startswith(b"data: {"):
            if line.startswith(b"data: [DONE]"):
                seen.whole = seen.output_tokens > 0 and not seen.error
            continue
        event = orjson.loads(line[6:])
        if "error" in event:
            seen.error = str(event["error"].get("code"))
            return
        if event.get("usage"):
            _count(event["usage"], seen)
            seen.whole = False  # not before its end
        events += 1
        if events == seen.ask.leaves_after:
            seen.left = True
            response.close()
            return


def _count(usage: Mapping[str, int], seen: Seen) -> None:
    seen.prompt_tokens, seen.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    seen.whole = True
