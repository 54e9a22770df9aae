"""How long a new tenant's key takes to work, and a revoked one to be refused, at four gateways."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from load_tests.money.platform import MODEL, Live, Shape, running
from load_tests.report import Mark, Row, median
from load_tests.servers import EngineWorkload, StartError

TABLE = "keys: 4 gateways, streams in flight meanwhile"
_GATEWAYS = 4
_INTERVAL_MS = 20.0
_STREAMS = 12
_STREAM_TOKENS = 150
_PAUSE_S = 0.01
#: So long a revoked key is tried after its revocation was answered.
_WATCH_S = 2.5
#: So many answers in a row, each on a connection of its own, are of all gateways.
_IN_A_ROW = 16
_PATIENCE_S = 30.0
_NAMES = ("new key: first answer", "new key: all gateways", "revoked key: last one let in")


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds. ``made_s``: the tenant and its key were made; from then to ``first_s`` its first
    answer, and to ``everywhere_s`` the first of many in a row. ``revoked_s``: the revocation was
    answered; from then until ``let_in_s`` a request was still let in (0: none)."""

    made_s: float
    first_s: float
    everywhere_s: float
    revoked_s: float
    let_in_s: float


def key_rows(workload: EngineWorkload, options: argparse.Namespace) -> tuple[list[Row], list[Mark]]:
    """Start the platform, and make and revoke keys.

    Raises:
        StartError: the platform does not come up, or a key never works.
    """
    rounds = options.rounds or (2 if options.quick else 10)
    shape = Shape(_GATEWAYS, 2, _INTERVAL_MS)
    with running(workload, shape, {"steady": {}}, options.keep_logs) as live:
        found, streams, disturbed = asyncio.run(_run(live, rounds))
    row = {
        "table": TABLE,
        "system": "weir",
        "rounds": rounds,
        "tenant_and_key_made_s": median(each.made_s for each in found),
        "first_answer_s": median(each.first_s for each in found),
        "first_answer_longest_s": max(each.first_s for each in found),
        "all_gateways_s": median(each.everywhere_s for each in found),
        "all_gateways_longest_s": max(each.everywhere_s for each in found),
        "revocation_answered_s": median(each.revoked_s for each in found),
        "revoked_let_in_s": median(each.let_in_s for each in found),
        "revoked_let_in_longest_s": max(each.let_in_s for each in found),
        "streams": streams,
        "streams_disturbed": disturbed,
    }
    values = [
        row[name]
        for name in ("first_answer_longest_s", "all_gateways_longest_s", "revoked_let_in_longest_s")
    ]
    return [row], key_marks(None, values, disturbed)


def key_marks(
    reason: str | None, values: Sequence[Any] = (None,) * 3, disturbed: int | None = None
) -> list[Mark]:
    """The longest of all rounds; a change is to be in force within a second."""
    marks = [
        Mark(name, value, "s", 1.0, "lower", reason)
        for name, value in zip(_NAMES, values, strict=True)
    ]
    name = "streams disturbed by new and revoked keys"
    return [*marks, Mark(name, disturbed, "streams", 0, "lower", reason)]


async def _run(live: Live, rounds: int) -> tuple[list[Round], int, int]:
    """The rounds, how many streams were open meanwhile, and how many of them broke off."""
    whole: list[bool] = []
    over = asyncio.Event()
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        asking = _Asking(http, live)

        async def stream() -> None:
            while not over.is_set():
                whole.append(await asking.stream(live.keys["steady"]))

        streams = [asyncio.create_task(stream()) for _ in range(_STREAMS)]
        try:
            found = [await asking.round(f"new-{number}") for number in range(rounds)]
        finally:
            over.set()
            own = await asyncio.gather(*asking.streams)
            await asyncio.gather(*streams)
    whole += own
    return found, len(whole), whole.count(False)


class _Asking:
    """``streams``: of keys that were revoked while these ran."""

    def __init__(self, http: aiohttp.ClientSession, live: Live) -> None:
        self._http = http
        self._live = live
        self.streams: list[asyncio.Task[bool]] = []

    async def round(self, tenant: str) -> Round:
        """One tenant comes and its key goes."""
        began_s = time.monotonic()
        await self._admin("POST", "/tenants", {"id": tenant})
        made = await self._admin("POST", f"/tenants/{tenant}/keys", {"name": "bench"})
        made_s = time.monotonic()
        key = str(made["secret"])
        first_s, everywhere_s = await self._until_everywhere(key, made_s)
        self.streams += [asyncio.create_task(self.stream(key)) for _ in range(_GATEWAYS)]
        await asyncio.sleep(0.5)
        asked_s = time.monotonic()
        path = f"/tenants/{tenant}/keys/{made['id']}"
        await self._admin("DELETE", path, None, {"if-match": "*"})
        revoked_s = time.monotonic()
        let_in_s = await self._last_let_in(key, revoked_s)
        return Round(
            made_s - began_s,
            first_s - made_s,
            everywhere_s - made_s,
            revoked_s - asked_s,
            let_in_s,
        )

    async def _until_everywhere(self, key: str, made_s: float) -> tuple[float, float]:
        """When the first answer was complete, and the first one after which none was refused."""
        first_s = begin_s = 0.0
        in_a_row = 0
        while in_a_row < _IN_A_ROW:
            if time.monotonic() - made_s > _PATIENCE_S:
                raise StartError("a new key does not work", "")
            status = await self._ask(key)
            now_s = time.monotonic()
            if status != 200:
                in_a_row = 0
                await asyncio.sleep(_PAUSE_S)
                continue
            first_s = first_s or now_s
            begin_s = now_s if in_a_row == 0 else begin_s
            in_a_row += 1
        return first_s, begin_s

    async def _last_let_in(self, key: str, revoked_s: float) -> float:
        """So long after the revocation the last request that was let in had been sent."""
        last_s = 0.0
        while (sent_s := time.monotonic()) - revoked_s < _WATCH_S:
            if await self._ask(key) == 200:
                last_s = sent_s - revoked_s
            await asyncio.sleep(_PAUSE_S)
        return last_s

    async def _ask(self, key: str) -> int:
        head = {"authorization": f"Bearer {key}"}
        url = f"{self._live.url}/v1/chat/completions"
        async with self._http.post(url, json=_body(1), headers=head) as response:
            await response.read()
            return response.status

    async def stream(self, key: str) -> bool:
        """Whether a long stream came to its end, with all its tokens."""
        head = {"authorization": f"Bearer {key}"}
        url = f"{self._live.url}/v1/chat/completions"
        body = _body(_STREAM_TOKENS) | {"stream": True}
        try:
            async with self._http.post(url, json=body, headers=head) as response:
                text = await response.read()
        except aiohttp.ClientError:
            return False
        return response.status == 200 and b"[DONE]" in text and b'"error"' not in text

    async def _admin(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        head = {"authorization": f"Bearer {self._live.operator}", **(headers or {})}
        url = f"{self._live.url}/admin/v1{path}"
        async with self._http.request(method, url, json=body, headers=head) as response:
            text = await response.text()
            if response.status >= 400:
                raise StartError(f"{method} {path}: {response.status}", text)
            return dict(await response.json()) if text else {}


def _body(tokens: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": tokens,
    }
