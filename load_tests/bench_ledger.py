"""``weir bench ledger``: what it costs to book a request, and a database with a million records.

*Booking* is what a plain chat request adds to the gateway: its record is made of its one leg,
encoded, and written into the outbox. *Writing* is the writer's share: batches of records into the
database, with their sums. *Reports* are asked of the sums that are kept up with each insert, and,
for comparison, of the records themselves.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Engine, func, select

from deployments import wire
from deployments.gateway.booking import Booking
from deployments.gateway.ending import ClassLimits, judge
from deployments.gateway.legs import Attempt, Choice, Leg
from deployments.gateway.plan import Step
from deployments.gateway.pricing import PriceLists
from deployments.gateway.record import Record
from load_tests.report import Mark, Report, Row, absent_row, bench_parser, emit, median, percentile
from weir.database import migrate, open_database, reading
from weir.ledger import ReplicaTime, UsageRecord
from weir.ledger.outbox import Outbox
from weir.ledger.rates import Rate
from weir.ledger.report import cost_report
from weir.ledger.store import Arrived, store
from weir.ledger.tables import HOUR_MS, usage_records
from weir.ledger.usage import usage
from weir.settings import ModelSettings, PriceSettings
from weir.testing.postgresql import postgresql_folder, running_postgresql

_BATCH = 500
_BEGIN_MS = 20_000 * 24 * HOUR_MS
_RATES = {("m0", ""): Rate(2_000_000_000, 2_000_000_000), ("m1", ""): Rate(50_000_000, 50_000_000)}


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    bookings: int
    records: int


class OutboxLedger:
    """What the gateway's ledger does with a note."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def note(self, records: Sequence[UsageRecord]) -> None:
        self.outbox.append(records)


def booking_row(size: Size) -> Row:
    """Microseconds for one request."""
    price = PriceSettings(input_usd_per_million_tokens=0.5)
    prices = PriceLists([ModelSettings(name="m", source="x", price=price)])
    model: Any = SimpleNamespace(name="m", pool_of=lambda replica: "")
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox.create(Path(folder), "bench")
        booking = Booking({"m": model}, prices, OutboxLedger(outbox), time.monotonic, time.time)
        records = [_request(number) for number in range(size.bookings)]
        took_us = []
        for record in records:
            ending = judge(record, 200, time.monotonic(), ClassLimits(), prices)
            begin_s = time.perf_counter()
            booking.book(record, ending)
            took_us.append((time.perf_counter() - begin_s) * 1e6)
        written = outbox.size_bytes / size.bookings
        assert outbox.next == size.bookings
        outbox.close()
    p50, p99 = percentile(took_us, 50), percentile(took_us, 99)
    return {
        "system": "weir",
        "table": "book a request",
        "p50_us": p50,
        "p99_us": p99,
        "bytes": written,
    }


def _request(number: int) -> Record:
    request: Any = SimpleNamespace(
        adapter=None,
        priority_class="standard",
        batch=None,
        body=SimpleNamespace(metadata=None),
        header=lambda name: None,
    )
    submit = wire.Submit(1, "r", [1] * 200, wire.Sampling(max_tokens=32))
    used = wire.Used(1, 200, 64, 32, 0.004, 0.2)
    stream: Any = SimpleNamespace(used=used, booked=lambda: None)
    leg = Leg("replica", [1] * 32, wire.Started(1, 200, 64), stream=stream)
    route: Any = None
    attempt = Attempt(Step("m"), [Choice(0, 0, route, submit, [leg])], shown=True)
    return Record("chat", 0.0, f"request-{number}", f"{number:024x}", "acme", "m", request,
                  attempts=[attempt], key="k1")  # fmt: skip


def records_of(size: Size, seed: int) -> Iterator[list[UsageRecord]]:
    """Batches over thirty days: 200 tenants, few of them busy; two models, three classes."""
    rng = random.Random(seed)
    tenants = [f"tenant-{n}" for n in range(200)]
    weights = [1 / (n + 1) for n in range(200)]
    span_ms = 30 * 24 * HOUR_MS
    for first in range(0, size.records, _BATCH):
        chosen = rng.choices(tenants, weights, k=_BATCH)
        at_ms = _BEGIN_MS + span_ms * first // size.records
        yield [
            _record(first + i, tenant, at_ms, rng)
            for i, tenant in enumerate(chosen[: size.records - first])
        ]


def _record(number: int, tenant: str, at_ms: int, rng: random.Random) -> UsageRecord:
    prompt, output = rng.randint(20, 2000), rng.randint(1, 300)
    cached = prompt // 2 if rng.random() < 0.5 else 0
    return UsageRecord(
        leg=f"{number:024x}.0.0.0",
        request=f"{number:024x}",
        tenant=tenant,
        key=f"{tenant}-{number % 2}",
        model=f"m{number % 2}",
        asked=f"m{number % 2}",
        replica=f"replica-{number % 8}",
        priority_class=("interactive", "standard", "batch")[number % 3],
        endpoint="chat",
        started_ms=at_ms,
        ended_ms=at_ms + 1000,
        prompt_tokens=prompt,
        cached_tokens=cached,
        output_tokens=output,
        billed_prompt_tokens=prompt,
        billed_cached_tokens=cached,
        billed_output_tokens=output,
        nano_usd=prompt * 500 + output * 1500,
        billed=True,
        prefill_us=(prompt - cached) * 20,
        decode_us=output * 700,
        requests=1,
    )


@contextmanager
def databases() -> Iterator[list[tuple[str, str | None]]]:
    """Name and URL of each kind; None where it is not installed."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        programs = postgresql_folder()
        url = None
        if programs is not None:
            url = stack.enter_context(running_postgresql(programs)).new_database()
        yield [("SQLite", f"sqlite:///{folder}/weir.db"), ("PostgreSQL", url)]


def database_rows(name: str, url: str, size: Size, seed: int) -> tuple[Row, list[Row]]:
    """How fast records go in; how long reports take then."""
    engine = open_database(url)
    migrate(engine)
    _put_hours(engine)
    begin_s = time.perf_counter()
    for number, records in enumerate(records_of(size, seed)):
        first = number * _BATCH
        store(engine, [Arrived("o", first, first + len(records), records)], _RATES, 1)
    took_s = time.perf_counter() - begin_s
    written = {"system": name, "table": "write", "records": size.records,
               "records_per_s": size.records / took_s}  # fmt: skip
    reports: list[tuple[str, Callable[[], object]]] = [
        ("usage by tenant, 30 days", lambda: usage(engine, ("tenant",))),
        ("usage by tenant and day, 30 days", lambda: usage(engine, ("tenant", "day"))),
        ("cost report by tenant, 30 days", lambda: cost_report(engine, "tenant")),
        ("the records themselves, by tenant", lambda: _of_records(engine)),
    ]
    rows: list[Row] = []
    for what, ask in reports:
        times = [_seconds(ask) for _ in range(3)]
        rows.append({"system": name, "table": "report", "what": what, "seconds": median(times)})
    engine.dispose()
    return written, rows


def _put_hours(engine: Engine) -> None:
    until_ms = _BEGIN_MS + 30 * 24 * HOUR_MS
    up = [
        ReplicaTime(replica=f"replica-{n}", model=f"m{n % 2}", pool="", from_ms=_BEGIN_MS,
                    until_ms=until_ms)
        for n in range(8)
    ]  # fmt: skip
    store(engine, [Arrived("hours", 0, len(up), up)], _RATES, 1)


def _of_records(engine: Engine) -> int:
    sums = [func.sum(usage_records.c[name]) for name in ("prompt_tokens", "nano_usd")]
    statement = select(usage_records.c.tenant, *sums).group_by(usage_records.c.tenant)
    with reading(engine) as connection:
        return len(connection.execute(statement).all())


def _seconds(ask: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    ask()
    return time.perf_counter() - begin_s


def run(size: Size, seed: int) -> Report:
    """Measure, and report."""
    rows: list[Row] = [booking_row(size)]
    with databases() as found:
        for name, url in found:
            if url is None:
                rows.append(absent_row(name, "PostgreSQL is not installed"))
                continue
            written, reports = database_rows(name, url, size, seed)
            rows += [written, *reports]
    booked = rows[0]
    slowest = max(row["seconds"] for row in rows if row.get("what", "").startswith("cost report"))
    marks = [
        Mark("booking a request, p50", booked["p50_us"], "µs", 50.0, "lower"),
        Mark("cost report over 30 days, the slower database", slowest, "s", 2.0, "lower"),
    ]
    busy = f"Load average over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
    return Report("ledger", seed, rows, marks, (busy,))


def main(argv: Sequence[str] | None = None) -> int:
    parser = bench_parser("ledger", __doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    size = Size(20_000, options.records)
    if options.quick:
        size = Size(500, 2000)
    return emit(run(size, options.seed), options, argv)


if __name__ == "__main__":
    raise SystemExit(main())
