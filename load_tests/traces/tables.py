"""Traces without prefixes: Azure's CSV files and the Chatbot Arena log as used by VTC.

Azure: TIMESTAMP, ContextTokens, GeneratedTokens (Azure/AzurePublicDataset, 2023).
Arena: t seconds, tenant, in, out tokens (Ying1123/VTC-artifact, real_trace).
"""

from __future__ import annotations

import datetime
from itertools import islice
from pathlib import Path

from load_tests.traces.reading import csv_rows, field, json_lines
from load_tests.traces.schema import Trace, TraceError, TraceRequest

BLOCK_SIZE = 16
_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


def load_azure(path: Path, limit: int | None = None) -> Trace:
    """Read an Azure CSV: exact times, no prefixes, no tenants."""
    requests: list[TraceRequest] = []
    start: datetime.datetime | None = None
    for number, row in islice(csv_rows(path, _COLUMNS), limit):
        try:
            # Seven decimals are given; datetime keeps six.
            stamp = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26])
        except ValueError as error:
            raise TraceError(f"{path}:{number}: {error}") from error
        start = start or stamp
        requests.append(
            TraceRequest(
                arrival_s=(stamp - start).total_seconds(),
                prompt_tokens=max(1, field(path, number, dict(row), "ContextTokens", int)),
                output_tokens=max(1, field(path, number, dict(row), "GeneratedTokens", int)),
            )
        )
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(path.name, "azure", BLOCK_SIZE, tuple(requests))


def load_arena(path: Path, limit: int | None = None) -> Trace:
    """Read the Arena log: 27 tenants, no prefixes."""
    requests = [
        TraceRequest(
            arrival_s=field(path, number, row, "t", float),
            prompt_tokens=max(1, field(path, number, row, "in", int)),
            output_tokens=max(1, field(path, number, row, "out", int)),
            tenant=f"tenant-{field(path, number, row, 'tenant', int)}",
        )
        for number, row in json_lines(path, limit)
    ]
    requests.sort(key=lambda request: request.arrival_s)
    return Trace(path.name, "lmsys-vtc", BLOCK_SIZE, tuple(requests))
