"""From a reply to a row: defaults, reasons, freshness, the long tail."""

from __future__ import annotations

import pytest

from features.online.service import FeatureRow, FeatureSpec, ServicePlan, ServiceSpec, ViewSpec
from features.online.values import GarbageError

NOW_S = 1_000_000.0
PROFILE = ViewSpec(
    "profile", (FeatureSpec("tier", "string", "bronze"), FeatureSpec("points", "int", 0)), 3600.0
)
GENERATED = ViewSpec("generated", (FeatureSpec("tone"),), None, optional=True)
PLAN = ServicePlan(ServiceSpec("desk", (PROFILE, GENERATED), "generated"))


def stamp(age_s: float) -> bytes:
    seconds = int(NOW_S - age_s)
    out = bytearray(b"\x08")
    while seconds > 0x7F:
        out.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    return bytes([*out, seconds])


GOLD, FIVE, WARM = b"\x12\x04gold", b"\x20\x05", b"\x12\x04warm"


def read(*reply: bytes | None) -> FeatureRow:
    return PLAN.read(reply, NOW_S)


def test_everything_there_is_a_hit() -> None:
    row = read(stamp(10), GOLD, FIVE, stamp(20), WARM)
    assert row.outcome == "hit"
    assert row.values == {"tier": "gold", "points": 5, "tone": "warm"}
    assert row.reasons == {}
    assert row.age_s(NOW_S) == 20
    assert not row.long_tail
    assert row.changes_at_s == NOW_S - 10 + 3600


def test_nothing_there_is_a_missing_entity() -> None:
    row = read(*[None] * 5)
    assert row.outcome == "missing"
    assert row.values == {"tier": "bronze", "points": 0, "tone": None}
    assert row.long_tail
    assert set(row.reasons.values()) == {"missing"}


def test_an_empty_text_is_not_a_missing_one() -> None:
    row = read(stamp(1), b"\x12\x00", FIVE, stamp(1), b"")
    assert (row.outcome, row.values["tier"]) == ("hit", "")
    assert row.reasons == {"tone": "null"}
    assert not row.long_tail


def test_an_optional_view_may_be_missing() -> None:
    row = read(stamp(1), GOLD, FIVE, None, None)
    assert (row.outcome, row.long_tail) == ("hit", True)
    assert row.reasons == {"tone": "missing"}


def test_another_view_may_not() -> None:
    row = read(None, None, None, stamp(1), WARM)
    assert (row.outcome, row.long_tail) == ("partial", False)
    assert row.values == {"tier": "bronze", "points": 0, "tone": "warm"}


def test_old_values_are_not_used() -> None:
    row = read(stamp(3601), GOLD, FIVE, stamp(1), WARM)
    assert row.outcome == "stale"
    assert row.values["tier"] == "bronze"
    assert row.reasons == {"tier": "stale", "points": "stale"}
    assert read(stamp(3600), GOLD, FIVE, stamp(1), WARM).outcome == "hit"


def test_a_feature_that_was_never_written_has_its_default() -> None:
    row = read(stamp(1), GOLD, None, stamp(1), WARM)
    assert (row.outcome, row.values["points"], row.reasons) == ("partial", 0, {"points": "absent"})


@pytest.mark.parametrize("cell", [GOLD, b"\xff\xff", b"\x29" + b"\0" * 8])
def test_a_wrong_type_has_its_default(cell: bytes) -> None:
    row = read(stamp(1), GOLD, cell, stamp(1), WARM)
    assert (row.outcome, row.values["points"]) == ("partial", 0)
    assert row.reasons == {"points": "wrong_type"}


def test_a_time_that_cannot_be_read_is_stale_where_age_counts() -> None:
    row = read(b"garbage", GOLD, FIVE, b"garbage", WARM)
    assert (row.outcome, row.values) == ("stale", {"tier": "bronze", "points": 0, "tone": "warm"})


def test_a_reply_of_another_length_is_garbage() -> None:
    with pytest.raises(GarbageError):
        read(stamp(1))


def test_without_an_answer_all_is_default() -> None:
    row = PLAN.without("timeout")
    assert (row.outcome, row.long_tail) == ("timeout", False)
    assert row.values == {"tier": "bronze", "points": 0, "tone": None}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ServiceSpec("s", ()), "at least one"),
        (ServiceSpec("s", (PROFILE, PROFILE)), "'tier' is there twice"),
        (ServiceSpec("s", (ViewSpec("v", (FeatureSpec("f", "date"),)),)), "'date'; known: string"),
        (ServiceSpec("s", (PROFILE,), "other"), "no view named 'other'"),
    ],
)
def test_what_cannot_be_read_is_refused(spec: ServiceSpec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServicePlan(spec)
