"""What gateways could have told: recorded boards, for tests of the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deployments.live import (
    STRETCH_MS,
    STRETCHES,
    AttemptFacts,
    Board,
    Candidate,
    EndedRequest,
    LegFacts,
    QueueFacts,
    ReplicaFacts,
    Row,
    Stretch,
    Sums,
)

REPLICAS = ("SERVE_REPLICA::weir#model-big#r1a2b3c4", "SERVE_REPLICA::weir#model-big#r5d6e7f8")


@dataclass(frozen=True)
class Told:
    """One gateway's board, of a time."""

    gateway: str
    now_ms: int
    tenants: tuple[str, ...] = ("acme", "other")

    def board(self) -> Board:
        """With requests of each tenant, one that spilled, one that moved, and one that failed."""
        return Board(
            self.gateway,
            self.now_ms,
            dict.fromkeys(self.tenants, 1),
            [self._replica(i, name) for i, name in enumerate(REPLICAS)],
            [
                QueueFacts("big", "interactive", 1, 2, 0),
                QueueFacts("big", "standard", 3, 0, 2),
                QueueFacts("big", "batch", 0, 0, 0),
            ],
            list(self._stretches()),
            list(self._recent()),
        )

    def _replica(self, number: int, name: str) -> ReplicaFacts:
        kv = (0.42, 0.91)[number]
        return ReplicaFacts(name, "big", "", "mixed", kv, 3 + number, number, 900 * number, 0.5)

    def _stretches(self) -> Iterator[Stretch]:
        last_ms = self.now_ms - self.now_ms % STRETCH_MS
        for back in range(STRETCHES - 1, -1, -1):
            rows = [
                Row(tenant, "big", name, self._sums(back))
                for tenant in self.tenants
                for name in ("interactive", "standard")
            ]
            yield Stretch(last_ms - back * STRETCH_MS, rows)

    def _sums(self, back: int) -> Sums:
        return Sums(
            requests=10,
            failed=int(back == 0),
            refused=1,
            ttft_met=9,
            ttft_missed=1,
            tpot_met=8,
            tpot_missed=2,
            prompt_tokens=1000,
            cached_tokens=400,
            output_tokens=300 + 10 * (back % 7),
            nano_usd=2_000_000,
            moved=int(back == 1),
            spills={"overload": 2} if back == 2 else {},
        )

    def _recent(self) -> Iterator[EndedRequest]:
        for tenant in self.tenants:
            yield self._request(
                f"{tenant}-plain", tenant, [_attempt("big", "", [_leg(REPLICAS[0])])]
            )
            lost = _leg(REPLICAS[0], loss="gone")
            after = LegFacts(0, REPLICAS[1], 400.0, 900.0, output_tokens=20, prompt_tokens=120)
            yield self._request(f"{tenant}-moved", tenant, [_attempt("big", "", [lost, after])])
            dropped = AttemptFacts("big", "", "", "dropped", None, None, [])
            small = LegFacts(0, "weir#model-small#s1", 250.0, 700.0, output_tokens=12)
            yield self._request(
                f"{tenant}-spilled", tenant, [dropped, _attempt("small", "overload", [small])]
            )
            yield self._request(f"{tenant}-failed", tenant, [], status=503, code="no_replica")

    def _request(
        self,
        name: str,
        tenant: str,
        attempts: list[AttemptFacts],
        status: int = 200,
        code: str = "",
    ) -> EndedRequest:
        answered = status == 200
        return EndedRequest(
            f"{self.gateway}-{name}-serial",
            f"{self.gateway}-{name}",
            tenant,
            "chat",
            "interactive",
            "big",
            status,
            code,
            self.now_ms - 2000,
            900.0,
            140.0 if answered else None,
            24.4 if answered else None,
            120,
            64,
            31,
            12_000,
            False,
            attempts,
        )


def _attempt(model: str, spill: str, legs: list[LegFacts]) -> AttemptFacts:
    return AttemptFacts(model, "", spill, "shown", 52.0, 40.0, legs)


def _leg(replica: str, loss: str = "") -> LegFacts:
    return LegFacts(
        0,
        replica,
        52.0,
        400.0 if loss else 900.0,
        "",
        120,
        64,
        31,
        loss,
        "least-expected-work",
        2,
        [Candidate(REPLICAS[0], 310.4, 0, 120, 2), Candidate(REPLICAS[1], 1900.25, 1700, 640, 0)],
    )
