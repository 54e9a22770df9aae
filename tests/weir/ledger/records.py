"""Records for tests."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine

import weir.ledger.slo
import weir.ledger.tables  # noqa: F401 - both declare their tables
from weir.database import metadata, open_database
from weir.ledger import UsageRecord

#: The beginning of an hour, and of a day.
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOON_MS = 20_000 * DAY_MS + 12 * HOUR_MS


def usage_record(number: int, **fields: Any) -> UsageRecord:
    """The leg with that number, of a request with 100 prompt tokens and 10 more."""
    usual = {
        "leg": f"s{number}.0.0.0",
        "request": f"r{number}",
        "tenant": "acme",
        "model": "m",
        "asked": "m",
        "replica": "a",
        "started_ms": NOON_MS,
        "ended_ms": NOON_MS + 500,
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 10,
        "billed_prompt_tokens": 100,
        "billed_cached_tokens": 40,
        "billed_output_tokens": 10,
        "nano_usd": 1000,
        "billed": True,
        "prefill_us": 6000,
        "decode_us": 20_000,
        "requests": 1,
    }
    return UsageRecord(**(usual | fields))


def fresh_database() -> Engine:
    """In memory, with the tables but without migrations: for tests with many of them."""
    engine = open_database("sqlite://")
    metadata.create_all(engine)
    return engine
