"""What ``…/live`` and ``…/requests/{request}`` answer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

_Class = Literal["live"]


class ClassBody(BaseModel):
    """How many answers of a class kept its limits. A limit that is null is none; so is a share of
    no answers."""

    priority_class: str
    ttft_slo_ms: float | None
    ttft_met: int
    ttft_missed: int
    ttft_attained: float | None
    tpot_slo_ms: float | None
    tpot_met: int
    tpot_missed: int
    tpot_attained: float | None


class SeriesBody(BaseModel):
    """The last quarter of an hour, in steps of half a minute that begin at ``at_s``. ``attained``:
    by class, the share of answers whose first token came in time."""

    step_s: float
    at_s: list[float]
    requests_per_s: list[float]
    output_tokens_per_s: list[float]
    usd_per_hour: list[float]
    attained: dict[str, list[float | None]]


class QuotaBody(BaseModel):
    """What is left of a quota. ``model``: null for the tenant's own."""

    model: str | None
    quota: str
    limit: int
    used: int


class BudgetNowBody(BaseModel):
    """The month's budget; reservations count as spent. Decimal text, USD."""

    usd_per_month: str
    spent_usd: str
    left_usd: str


class TenantNowBody(BaseModel):
    """A tenant in the last minutes. ``quotas`` and ``budget``: null where they cannot be found out
    now, or the tenant is none of the most active ones."""

    tenant: str
    in_flight: int
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: str
    ttft_met: int
    ttft_missed: int
    moved: int
    spilled: int
    quotas: list[QuotaBody] | None
    budget: BudgetNowBody | None


class SpillBody(BaseModel):
    """Requests that another model, or the model without its adapter, answered for ``model``."""

    model: str
    reason: str
    requests: int


class ReplicaBody(BaseModel):
    """A replica as it last said. ``usd_per_hour``: what it costs; null: no price is set."""

    id: str
    model: str
    pool: str
    role: str
    kv_use: float
    running: int
    waiting: int
    outstanding_tokens: int
    age_s: float
    mfu: float | None
    mbu: float | None
    usd_per_hour: str | None


class QueueBody(BaseModel):
    """Requests that wait for a replica, in all gateways."""

    model: str
    priority_class: str
    waiting: int
    late: int


class CandidateBody(BaseModel):
    """A replica that a decision weighed; the least cost that has room wins."""

    replica: str
    cost: float
    prefill_tokens: int
    decode_tokens: int
    held_blocks: int


class RecentBody(BaseModel):
    """A request that has ended, in one line. ``replica``, ``reason``, ``held_blocks``: of its
    first decision. ``candidates``: how many were weighed, ``cost`` and ``next_cost``: that of the
    chosen one and the least of another; for the operator, because other tenants' work is in it."""

    serial: str
    id: str
    tenant: str
    endpoint: str
    priority_class: str
    model: str
    answered: str
    status: int
    code: str
    at_s: float
    took_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: str
    spill: str
    moved: int
    replica: str
    prefill_replica: str
    reason: str
    held_blocks: int
    candidates: int
    cost: float | None
    next_cost: float | None


class LiveBody(BaseModel):
    """This moment. Sums are of the last ``window_s`` seconds. Of a tenant it has that tenant's
    own, and neither replicas nor queues."""

    model_config = ConfigDict(json_schema_extra={"description": "This moment."})
    object: _Class = "live"
    tenant: str | None
    at_s: float
    window_s: int
    gateways: int
    in_flight: int
    requests: int
    failed: int
    refused: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: str
    moved: int
    paid_usd_per_hour: str | None
    classes: list[ClassBody]
    series: SeriesBody
    tenants: list[TenantNowBody]
    replicas: list[ReplicaBody] | None
    queues: list[QueueBody] | None
    spills: list[SpillBody]
    recent: list[RecentBody]


class LegBody(BaseModel):
    """One placement of a choice. Milliseconds after the request's arrival. ``loss``: why the choice
    went on elsewhere; ``candidates``: what was weighed, for the operator."""

    choice: int
    replica: str
    prefill_replica: str
    begun_ms: float
    ended_ms: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    loss: str
    reason: str
    held_blocks: int
    candidates: list[CandidateBody] | None


class AttemptBody(BaseModel):
    """All choices by one model. ``outcome``: shown, doubtful (not good enough) or dropped."""

    model: str
    adapter: str
    spill: str
    outcome: str
    admitted_ms: float | None
    waited_ms: float | None
    legs: list[LegBody]


class FollowedBody(BaseModel):
    """A request and all its legs. ``source``: ``gateway`` (of the last requests, with decisions) or
    ``ledger`` (without)."""

    serial: str
    id: str
    source: Literal["gateway", "ledger"]
    tenant: str
    endpoint: str
    priority_class: str
    model: str
    status: int | None
    code: str
    at_s: float
    took_ms: float
    ttft_ms: float | None
    tpot_ms: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: str
    batch: bool
    attempts: list[AttemptBody]


class FollowedListBody(BaseModel):
    """The requests of that id, the newest first: clients may give one twice."""

    object: Literal["list"] = "list"
    data: list[FollowedBody]
