"""Who may do something else for a while: steady, whoever asks and however often."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.disaggregation.roles import (
    LEAST_S,
    Change,
    Member,
    RoleRefusedError,
    check_change,
    plan_changes,
    plan_split,
)
from router.types import Role

ROLES: list[Role] = ["mixed", "prefill", "decode"]


def fleet(*roles: Role) -> list[Member]:
    return [Member(f"r{i}", role, changes=True) for i, role in enumerate(roles)]


def refusal(members: list[Member], change: Change, now_s: float = 0.0) -> str:
    with pytest.raises(RoleRefusedError) as refused:
        check_change(members, change, now_s)
    return str(refused.value)


@pytest.mark.parametrize(
    ("roles", "role", "told"),
    [
        (["mixed"], "prefill", "the last one that answers"),
        (["mixed", "prefill"], "prefill", "the last one that answers"),
        (["mixed", "decode"], "decode", "the last one that computes prompts"),
        (["prefill", "decode"], "decode", "the last one that computes prompts"),
    ],
)
def test_somebody_answers_and_somebody_computes_prompts(
    roles: list[Role], role: Role, told: str
) -> None:
    assert told in refusal(fleet(*roles), Change("r0", role))


def test_a_replica_that_has_changed_stays_so_for_a_while() -> None:
    members = fleet("mixed", "mixed")
    members[0] = replace(members[0], role="prefill", changed_s=100.0)
    assert "again in 25 s" in refusal(members, Change("r0", "mixed"), 105.0)
    check_change(members, Change("r0", "mixed"), 100.0 + LEAST_S)
    check_change(members, Change("r0", "prefill"), 105.0)  # It is so already.


def test_only_who_can_changes() -> None:
    members = [Member("p", "prefill", "prefill", changes=False), *fleet("mixed")]
    assert "whose role is prefill" in refusal(members, Change("p", "mixed"))
    assert "no replica q" in refusal(members, Change("q", "mixed"))


def test_those_with_least_to_move_change_first_and_who_is_too_many_goes_back() -> None:
    loads = (50, 10, 30, 20)
    members = [
        replace(m, decode_tokens=n) for m, n in zip(fleet(*["mixed"] * 4), loads, strict=True)
    ]
    ids = [m.replica_id for m in members]
    changes = plan_changes(members, ids, "prefill", 2, 0.0)
    assert changes == [Change("r1", "prefill"), Change("r3", "prefill")]
    members[1], members[3] = (
        replace(members[1], role="prefill"),
        replace(members[3], role="prefill"),
    )
    assert plan_changes(members, ids, "prefill", 2, 0.0) == []
    assert plan_changes(members, ids, "prefill", 1, 0.0) == [Change("r1", "mixed")]
    with pytest.raises(RoleRefusedError, match="4 replicas cannot be prefill now: "):
        plan_changes(members, ids, "prefill", 4, 0.0)


MEMBERS = st.lists(
    st.builds(
        lambda own, role, changes, decode, since: (
            own,
            role if changes else own,
            changes,
            decode,
            since,
        ),
        st.sampled_from(ROLES),
        st.sampled_from(ROLES),
        st.booleans(),
        st.integers(0, 1000),
        st.floats(-100.0, 0.0),
    ),
    min_size=1,
    max_size=8,
)


def made(drawn: list[tuple[Role, Role, bool, int, float]]) -> list[Member]:
    return [
        Member(f"r{i}", role, own, changes, since, decode)
        for i, (own, role, changes, decode, since) in enumerate(drawn)
    ]


@settings(max_examples=300, deadline=None)
@given(
    drawn=MEMBERS,
    asked=st.lists(
        st.tuples(st.sampled_from(ROLES), st.integers(0, 8), st.floats(0.0, 40.0)), max_size=20
    ),
)
def test_whatever_is_asked_the_rules_hold(
    drawn: list[tuple[Role, Role, bool, int, float]], asked: list[tuple[Role, int, float]]
) -> None:
    members = made(drawn)
    answered = any(m.role != "prefill" for m in members)
    computed = any(m.role != "decode" for m in members)
    changed_s: dict[str, list[float]] = defaultdict(list)
    now_s = 0.0
    for role, count, after_s in asked:
        now_s += after_s
        ids = [m.replica_id for m in members]
        try:
            changes = plan_changes(members, ids, role, count, now_s)
        except RoleRefusedError:
            continue
        for change in changes:
            place = ids.index(change.replica_id)
            assert members[place].changes
            assert now_s - members[place].changed_s >= LEAST_S - 1e-6
            members[place] = replace(members[place], role=change.role, changed_s=now_s)
            changed_s[change.replica_id].append(now_s)
        assert not answered or any(m.role != "prefill" for m in members)
        assert not computed or any(m.role != "decode" for m in members)
        assert sum(m.role == role for m in members) == count or role in {
            m.own for m in members if m.role == role
        }
    for times in changed_s.values():
        assert all(b - a >= LEAST_S - 1e-6 for a, b in itertools.pairwise(times))


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(2, 10),
    share=st.floats(0.05, 0.95),
    moved=st.lists(st.integers(0, 1000), min_size=10, max_size=10),
)
def test_under_a_constant_load_roles_come_to_rest(
    count: int, share: float, moved: list[int]
) -> None:
    """Somebody asks every 5 s for as many as the load wants, which is the same all the time; the
    work itself moves with the roles. Each replica changes once at most."""
    members = fleet(*["mixed"] * count)
    wanted = max(1, min(count - 1, round(share * count)))
    changes_of: dict[str, int] = defaultdict(int)
    for step in range(60):
        now_s = 5.0 * step
        # What was generated on replicas that compute prompts now is generated elsewhere.
        loads = [
            0 if m.role == "prefill" else moved[(i + step) % 10] for i, m in enumerate(members)
        ]
        members = [replace(m, decode_tokens=n) for m, n in zip(members, loads, strict=True)]
        changes = plan_changes(members, [m.replica_id for m in members], "prefill", wanted, now_s)
        for change in changes:
            changes_of[change.replica_id] += 1
            members = [
                replace(m, role=change.role, changed_s=now_s)
                if m.replica_id == change.replica_id
                else m
                for m in members
            ]
    assert sum(m.role == "prefill" for m in members) == wanted
    assert sum(changes_of.values()) == wanted
    assert set(changes_of.values()) == {1}


def split(members: list[Member], prefill: int, now_s: float) -> list[Member]:
    among = [member.replica_id for member in members]
    for change in plan_split(members, among, prefill, now_s):
        members = [
            replace(m, role=change.role, changed_s=now_s)
            if m.replica_id == change.replica_id
            else m
            for m in members
        ]
    return members


def test_a_split_leaves_no_replica_mixed_and_moves_as_few_as_it_can() -> None:
    members = split(fleet("mixed", "mixed", "mixed", "mixed"), 1, 0.0)
    assert [m.role for m in members] == ["prefill", "decode", "decode", "decode"]
    assert plan_split(members, ["r0", "r1", "r2", "r3"], 1, 50.0) == []
    more = split(members, 3, 50.0)
    assert [m.role for m in more] == ["prefill", "prefill", "prefill", "decode"]
    assert split(more, 1, 60.0)[0] == more[0]  # three have just changed: nothing moves
    assert [m.role for m in split(more, 1, 90.0)] == ["prefill", "decode", "decode", "decode"]


def test_gateways_that_see_other_loads_split_alike() -> None:
    seen = fleet("mixed", "mixed", "mixed", "mixed")
    other = [replace(m, decode_tokens=1000 - 100 * n) for n, m in enumerate(seen)]
    among = [m.replica_id for m in seen]
    assert plan_split(seen, among, 2, 0.0) == plan_split(other, among, 2, 0.0)


def test_a_split_leaves_replicas_alone_that_have_their_pools_role() -> None:
    members = [Member("p", "prefill", "prefill", changes=False), *fleet("mixed", "mixed")]
    assert split(members, 2, 0.0)[0] == members[0]
    assert plan_split(members, ["p"], 0, 0.0) == []
