"""Has replicas do something else for a while: whoever wants it, this is how they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp

from deployments import role_page, wire
from deployments.gateway.model import Model
from router.disaggregation.roles import Change, Member
from router.router import Router
from router.types import ReplicaInfo
from weir.errors import ConflictError, OverloadedError

_ANSWER_S = 3.0
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Replicas:
    """How replicas are reached: ``token`` is the platform's own."""

    session: aiohttp.ClientSession
    token: str

    async def tell(self, model: Model, change: Change, for_s: float | None) -> None:
        """Have a replica change, and wait until this gateway has heard of it from the replica.

        Raises:
            ConflictError: it refuses.
            OverloadedError: it has left, or does not answer in time.
        """
        info = find(model.router.members, change.replica_id)
        params = {"role": change.role, **({} if for_s is None else {"for_s": str(for_s)})}
        try:
            async with asyncio.timeout(_ANSWER_S):
                async with self.session.post(
                    f"http://{info.address}{role_page.PATH}",
                    params=params,
                    headers={wire.TOKEN_HEADER: self.token},
                ) as answer:
                    told = await answer.json(content_type=None)
                if answer.status != 200:
                    raise ConflictError(str(told.get("error", told)))
                while find(model.router.members, info.replica_id).role != change.role:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_S)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
            reason = str(error) or "no answer in time"
            raise OverloadedError(f"Replica {info.replica_id} did not change: {reason}.") from None


def members_of(router: Router) -> list[Member]:
    """All replicas of a model, as the rules for changing roles see them."""
    return [
        Member(
            info.replica_id,
            info.role,
            info.pool_role,
            info.changes_role,
            router.role_changed_s(info.replica_id),
            router.own_load(info.replica_id).decode_tokens,
        )
        for info in router.members
    ]


def find(members: Iterable[ReplicaInfo], replica_id: str) -> ReplicaInfo:
    """The member of that id.

    Raises:
        OverloadedError: it has left.
    """
    found = next((info for info in members if info.replica_id == replica_id), None)
    if found is None:
        raise OverloadedError(f"Replica {replica_id} has left.")
    return found
