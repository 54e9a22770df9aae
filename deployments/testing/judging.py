"""What a client should have received, and what a tenant should have been billed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deployments import wire
from deployments.testing.background import BackgroundExchange
from deployments.testing.cluster import Bill, Cluster
from deployments.testing.counting import Served
from deployments.testing.exchange import Exchange
from deployments.testing.kinds import Kind, Said


def ask(
    cluster: Cluster,
    kind: Kind,
    number: int,
    stream: bool,
    key: str,
    request_id: str,
    priority_class: str = "standard",
    **body: Any,
) -> Exchange:
    """A request of a kind by the tenant with that key. One in the background is asked for until it
    has ended; leaving it cancels it."""
    fields = {"stream": True} if stream else {}
    whole = {"model": cluster.model.name, **kind.body(number), **fields, **body}
    headers = {"x-request-id": request_id, "x-weir-priority": priority_class}
    told = cluster.ask(kind.path, whole, key, **headers)
    return BackgroundExchange(cluster.responses, told, key).ask() if kind.background else told


@dataclass(frozen=True, slots=True)
class Owed:
    """Token counts as the engines have them."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    def bill(self, cluster: Cluster) -> Bill:
        """The same, with its price."""
        price = cluster.model.settings.price
        cached_usd = price.cached_input_usd_per_million_tokens or price.input_usd_per_million_tokens
        cost = (
            (self.prompt_tokens - self.cached_tokens) * price.input_usd_per_million_tokens
            + self.cached_tokens * cached_usd
            + self.output_tokens * price.output_usd_per_million_tokens
        ) / 1e6
        return Bill(self.prompt_tokens, self.cached_tokens, self.output_tokens, round(cost, 9))


def owed(cluster: Cluster) -> Owed:
    """For everything that the engines have generated, none of which was disturbed.

    Choices of one prompt share it: it is owed once for each request, as the first of them had it
    (request ids are used once, and have no hyphen). Of a prompt that was handed over, it is owed
    where it was computed.
    """
    streams = [s for host in cluster.hosts.values() for s in host.meter.streams]
    prompts: dict[tuple[str, tuple[int, ...]], Served] = {}
    for served in sorted(streams, key=lambda s: (s.request_id, _takes(s.request))):
        asked = served.request_id.partition("-")[0]
        prompts.setdefault((asked, tuple(served.request.prompt)), served)
    return Owed(
        sum(served.prompt_tokens for served in prompts.values()),
        sum(served.cached_tokens for served in prompts.values()),
        sum(served.output_tokens for served in streams),
    )


def right_answers(cluster: Cluster, kind: Kind, request_id: str, number: int) -> list[Said]:
    """What each choice should be, from what the engines were asked last under that id."""
    asked: dict[str, wire.Submit | wire.Embed] = {}
    for host in cluster.hosts.values():
        for served in host.meter.of(request_id):
            if isinstance(getattr(served.request, "handoff", None), wire.Keep):
                continue
            asked[served.request_id] = served.request
    return kind.rights([asked[choice] for choice in sorted(asked)], number)


def _takes(request: wire.Submit | wire.Embed) -> bool:
    return isinstance(getattr(request, "handoff", None), wire.Take)
