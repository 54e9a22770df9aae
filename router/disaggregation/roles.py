"""Which replicas do something else for a while: pure, over what is known of a model's replicas.

A mixed replica can be told to only compute prompts, or to only answer. Three rules keep the roles
of a model steady, whoever asks for a change, and however often:

- a replica that has changed keeps its new role for ``least_s`` seconds;
- somebody always answers, and somebody always computes prompts;
- who has the role already is left alone, so asking twice for the same changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from router.types import Role

#: What one change costs (streams move, their prompts are computed again) is small against that.
LEAST_S = 30.0


@dataclass(frozen=True, slots=True)
class Member:
    """A replica. ``own``: its pool's role; ``changes``: it can have another one; ``changed_s``:
    when it last changed, on the caller's clock (minus infinity: not that anybody knows);
    ``decode_tokens``: what it still has to generate, which would move."""

    replica_id: str
    role: Role
    own: Role = "mixed"
    changes: bool = True
    changed_s: float = -math.inf
    decode_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """``replica_id`` shall have ``role``."""

    replica_id: str
    role: Role


class RoleRefusedError(Exception):
    """The roles stay as they are; the message says why."""


def check_change(
    members: Sequence[Member], change: Change, now_s: float, least_s: float = LEAST_S
) -> None:
    """Whether one replica may have another role now. ``members``: all of its model.

    Raises:
        RoleRefusedError: it may not.
    """
    member = next((m for m in members if m.replica_id == change.replica_id), None)
    if member is None:
        raise RoleRefusedError(f"There is no replica {change.replica_id}.")
    if member.role == change.role:
        return
    if not member.changes:
        raise RoleRefusedError(
            f"Replica {member.replica_id} is of a pool whose role is {member.own}, and stays so: "
            f"mixed replicas of a model that hands prompts over can change."
        )
    if (left_s := member.changed_s + least_s - now_s) > 0:
        raise RoleRefusedError(
            f"Replica {member.replica_id} has just become {member.role}; it can change again in "
            f"{math.ceil(left_s)} s."
        )
    after = _applied(members, change)
    if all(m.role == "prefill" for m in after):
        raise RoleRefusedError(f"Replica {member.replica_id} is the last one that answers.")
    if all(m.role == "decode" for m in after):
        raise RoleRefusedError(
            f"Replica {member.replica_id} is the last one that computes prompts for others."
        )


def plan_changes(
    members: Sequence[Member],
    among: Collection[str],
    role: Role,
    count: int,
    now_s: float,
    least_s: float = LEAST_S,
) -> list[Change]:
    """The fewest changes after which ``count`` of the replicas ``among`` have ``role``: those with
    the least to generate change first, and those that are too many go back to what their pool is
    for.

    Raises:
        RoleRefusedError: it cannot be done now.
    """
    own = [m for m in members if m.replica_id in among]
    having = [m for m in own if m.role == role]
    if len(having) <= count:
        others = [m for m in own if m.role != role]
        wanted = [(m, role) for m in _idlest(others)]
    else:
        wanted = [(m, m.own) for m in _idlest(having) if m.own != role]
    changes: list[Change] = []
    missing, why = abs(count - len(having)), f"there are {len(own)} replicas"
    for member, new in wanted:
        if len(changes) == missing:
            break
        change = Change(member.replica_id, new)
        try:
            check_change(members, change, now_s, least_s)
        except RoleRefusedError as refused:
            why = str(refused)
            continue
        members = _applied(members, change)
        changes.append(change)
    if len(changes) < missing:
        raise RoleRefusedError(f"{count} replicas cannot be {role} now: {why}")
    return changes


def plan_split(
    members: Sequence[Member],
    among: Collection[str],
    prefill: int,
    now_s: float,
    least_s: float = LEAST_S,
) -> list[Change]:
    """The changes after which ``prefill`` of the replicas ``among`` only compute prompts and the
    others only answer. Those that may not change now stay as they are, until this is asked again.
    Who computes prompts goes on doing so, and else the order of their ids decides: several gateways
    that split alike choose the same replicas."""
    own = [m for m in members if m.replica_id in among]
    own.sort(key=lambda m: (m.role != "prefill", m.replica_id))
    changes: list[Change] = []
    for place, member in enumerate(own):
        role: Role = "prefill" if place < prefill else "decode"
        change = Change(member.replica_id, role)
        if member.role == role:
            continue
        try:
            check_change(members, change, now_s, least_s)
        except RoleRefusedError:
            continue
        members = _applied(members, change)
        changes.append(change)
    return changes


def _idlest(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda m: (m.decode_tokens, m.replica_id))


def _applied(members: Sequence[Member], change: Change) -> list[Member]:
    return [
        replace(m, role=change.role) if m.replica_id == change.replica_id else m for m in members
    ]
