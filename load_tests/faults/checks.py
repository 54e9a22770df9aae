"""What must hold when a story is over."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments import wire
from deployments.gateway.legs import Choice
from deployments.gateway.record import Record
from deployments.stub_generator import rendered_prompt
from deployments.testing.exchange import MemoryExchange
from deployments.testing.in_memory import MemoryCluster
from deployments.testing.kinds import Answer, Said, agrees
from load_tests.faults.story import TENANTS, Visit
from weir.errors import NoReplicaError, OverloadedError, RateLimitError

if TYPE_CHECKING:
    from load_tests.faults.playing import Played

_WORD = re.compile(r"w\d+ ")
#: Events that are no part of an answer.
_NO_ANSWER = (b'"error"', b'"type":"ping"', b"[DONE]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be. ``rule`` is one of a handful of names."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


@dataclass(slots=True)
class _Due:
    """What a tenant owes: exactly so many prompt tokens, output tokens between two bounds."""

    prompt: int = 0
    least: int = 0
    most: int = 0


def judge(cluster: MemoryCluster, played: Played, stuck: bool) -> list[Finding]:
    """All that is wrong. ``stuck``: requests had not ended when patience was over."""
    findings: list[Finding] = []
    if stuck:
        open_ = [rid for rid, exchange in played.exchanges.items() if not exchange.ended]
        return [Finding("ends", f"not ended: {open_}; {cluster.left_over()}")]
    records: dict[str, list[Record]] = defaultdict(list)
    for record in played.records:
        records[record.request.id if record.request else ""].append(record)
    due = {tenant: _Due() for tenant in TENANTS}
    for visit in played.story.visits:
        own = records.pop(visit.request_id, [])
        exchange = played.exchanges[visit.request_id]
        if len(own) != 1 or not exchange.proper:
            told = f"{visit.request_id} was settled {len(own)} times; {exchange.events}"
            findings.append(Finding("ends", told))
            continue
        findings += _judge_visit(cluster, played, visit, own[0], exchange, due[visit.tenant])
    if records:
        findings.append(Finding("ends", f"settled and never asked: {sorted(records)}"))
    return findings + [f for tenant in TENANTS for f in _bill(cluster, tenant, due[tenant])]


def _judge_visit(
    cluster: MemoryCluster,
    played: Played,
    visit: Visit,
    record: Record,
    exchange: MemoryExchange,
    due: _Due,
) -> Iterator[Finding]:
    choices = record.attempts[0].choices if record.attempts else []
    answer = Answer()
    if exchange.raw:
        streamed = visit.stream and exchange.status == 200
        answer = visit.kind.read(bytes(exchange.raw), streamed)
    if _shown(visit, exchange) or record.client_left:
        _add_due(cluster, visit, choices, answer, exchange, due)
    if exchange.status == 200:
        rights = visit.kind.rights([choice.submit for choice in choices], visit.number)
        yield from _text(visit, answer, rights)
    if record.error is not None and not record.client_left:
        yield from _error(played, visit, record, choices)
    if exchange.status == 0 and not record.client_left:
        yield Finding("ends", f"{visit.request_id} had no answer, and its client had not left")


def _shown(visit: Visit, exchange: MemoryExchange) -> bool:
    """Whether the client saw anything of an answer. A stream that waited long is open without."""
    if exchange.status != 200 or not visit.stream:
        return exchange.status == 200
    events = [line for line in bytes(exchange.raw).split(b"\n") if line.startswith(b"data: ")]
    return any(not any(mark in event for mark in _NO_ANSWER) for event in events)


def _text(visit: Visit, answer: Answer, rights: Sequence[Said]) -> Iterator[Finding]:
    if answer.complete and answer.error is None:
        if len(answer.said) != len(rights) or not all(map(agrees, answer.said, rights)):
            yield Finding("text", f"{visit.request_id}: {answer.said} is not {rights}")
        return
    for said in answer.said:
        if not any(_begins(said, right) for right in rights):
            yield Finding("text", f"{visit.request_id}: {said} begins none of {rights}")


def _begins(said: Said, right: Said) -> bool:
    if len(said.calls) > len(right.calls):
        return False
    calls = zip(said.calls, right.calls, strict=False)
    return (
        right.text.startswith(said.text)
        and all(a[0] == b[0] and b[1].startswith(a[1]) for a, b in calls)
        and right.scored[: len(said.scored)] == said.scored
    )


def _error(
    played: Played, visit: Visit, record: Record, choices: Sequence[Choice]
) -> Iterator[Finding]:
    """An error must be a clean one; and while a replica was well throughout, it must be one of the
    rules' own bounds that was reached."""
    error = record.error
    assert error is not None
    told = f"{visit.request_id}: {type(error).__name__}: {error.message}"
    if error.code == "internal_error":
        yield Finding("errors", told)
    if not played.story.guarded:
        return
    full = isinstance(error, OverloadedError | RateLimitError)
    full = full and not isinstance(error, NoReplicaError)
    if full and not all(choice.legs for choice in choices):
        return  # a full queue refused the request, or one of its choices
    if not any(choice.legs for choice in choices):
        yield Finding("errors", f"{told} (before any replica was asked)")
    elif not played.moves_refused and max(map(_vain, choices)) < 3:
        yield Finding("errors", f"{told} (a replica was well all the time)")


def _vain(choice: Choice) -> int:
    """Legs since the last one with a token."""
    count = 0
    for leg in reversed(choice.legs):
        if leg.tokens:
            break
        count += 1
    return count


def _add_due(
    cluster: MemoryCluster,
    visit: Visit,
    choices: Sequence[Choice],
    answer: Answer,
    exchange: MemoryExchange,
    due: _Due,
) -> None:
    prompts = {c.prompt_number: c for c in reversed(choices) if c.legs}
    due.prompt += sum(_prompt_tokens(c) for c in prompts.values())
    if exchange.status == 200:
        words = sum(_words(visit, said) for said in answer.said)
        due.least += words
        due.most += words
    else:
        made = [s for host in cluster.hosts.values() for s in host.meter.of(visit.request_id)]
        due.most += sum(served.output_tokens for served in made)


def _words(visit: Visit, said: Said) -> int:
    text = said.text
    if visit.kind.name == "echo":
        text = text[len(str(visit.kind.body(visit.number)["prompt"])) :]
    return len(_WORD.findall(text)) + sum(len(_WORD.findall(a)) for _, a in said.calls)


def _prompt_tokens(choice: Choice) -> int:
    submit = choice.submit
    if isinstance(submit, wire.Submit) and submit.messages is not None:
        told = any(leg.started or leg.last for leg in choice.legs)
        return len(rendered_prompt(submit.messages)) if told else 0
    return len(submit.prompt)


def _bill(cluster: MemoryCluster, tenant: str, due: _Due) -> Iterator[Finding]:
    bill, price = cluster.bill(tenant), cluster.model.settings.price
    told = f"{tenant}: {bill}, due {due}"
    exact = bill.prompt_tokens == due.prompt and 0 <= bill.cached_tokens <= due.prompt
    if not exact or not due.least <= bill.output_tokens <= due.most:
        yield Finding("bill", told)
    cached_usd = price.cached_input_usd_per_million_tokens or 0.0
    cost_usd = (
        (bill.prompt_tokens - bill.cached_tokens) * price.input_usd_per_million_tokens
        + bill.cached_tokens * cached_usd
        + bill.output_tokens * price.output_usd_per_million_tokens
    ) / 1e6
    if abs(cost_usd - bill.cost_usd) > 1e-8:
        yield Finding("bill", f"{told}; its price is {cost_usd}")
    counted, spent = cluster.book.counted(tenant, "t"), cluster.book.spent_nano_usd(tenant)
    _, prompt, output = counted.daily
    billed = (bill.prompt_tokens, bill.output_tokens, 0)
    if (prompt, output, counted.concurrent) != billed or abs(spent / 1e9 - bill.cost_usd) > 1e-8:
        yield Finding("account", f"{told}; its account: {counted}, {spent} nano-USD")
