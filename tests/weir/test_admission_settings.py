"""The ``admission`` section says what is wrong, and where."""

from __future__ import annotations

from typing import Any

import pytest

from weir.settings import AdmissionSettings, SettingsError, load_settings, parse_settings
from weir.settings.admission import Share


def read(section: dict[str, Any]) -> AdmissionSettings:
    return load_settings("laptop", overlay={"admission": section}).admission


def wrong(section: dict[str, Any]) -> set[str]:
    with pytest.raises(SettingsError) as caught:
        read(section)
    return {problem.path for problem in caught.value.problems}


def test_defaults() -> None:
    settings = read({})
    assert settings == AdmissionSettings()
    assert settings.enabled
    assert [c.name for c in settings.classes] == ["interactive", "standard", "batch"]
    assert [c.urgency for c in settings.classes] == [0, 1, 2]


def test_everything_can_be_given() -> None:
    given = {
        "enabled": True,
        "classes": {
            "gold": {"urgency": 0, "weight": 4, "share": {"prefill": 0.9}},
            "iron": {"urgency": 0, "within": "short-first", "on_hopeless": "shed"},
        },
        "limits": {"prefill": {"tokens": 2048}, "kv": None},
        "tenant_weights": {"acme": 2.0},
    }
    settings = read(given)
    gold, iron = settings.classes
    assert (gold.name, gold.weight, gold.share) == ("gold", 4, Share(prefill=0.9))
    assert (iron.within, iron.on_hopeless) == ("short-first", "shed")
    assert settings.limits == {"prefill": {"tokens": 2048}, "kv": None}
    assert (settings.tenant_weight("acme"), settings.tenant_weight("other")) == (2.0, 1.0)


def test_classes_are_written_as_they_are_read() -> None:
    whole = load_settings(
        "laptop", overlay={"admission": {"classes": {"interactive": {"urgency": 3}}}}
    )
    written = whole.model_dump(mode="json")
    assert written["admission"]["classes"]["interactive"]["urgency"] == 3
    assert "name" not in written["admission"]["classes"]["interactive"]
    assert parse_settings(written, "again") == whole


@pytest.mark.parametrize(
    ("section", "paths"),
    [
        ({"clases": {}}, {"clases"}),
        ({"classes": {}}, {"classes"}),
        ({"classes": []}, {"classes"}),
        ({"classes": {"a": {}}}, {"classes.a.urgency"}),
        ({"classes": {"a": {"urgency": -1}}}, {"classes.a.urgency"}),
        ({"classes": {"a": {"urgency": 0, "name": "b"}}}, {"classes.a.name"}),
        ({"classes": {"a": {"urgency": 0, "wieght": 1}}}, {"classes.a.wieght"}),
        ({"classes": {"a": {"urgency": 0, "weight": 0}}}, {"classes.a.weight"}),
        ({"classes": {"a": {"urgency": 0, "max_requests": 0}}}, {"classes.a.max_requests"}),
        ({"classes": {"a": {"urgency": 0, "within": "lifo"}}}, {"classes.a.within"}),
        ({"classes": {"a": {"urgency": 0, "max_wait_s": "x"}}}, {"classes.a.max_wait_s"}),
        ({"classes": {"a": {"urgency": 0, "share": {"kv": 2}}}}, {"classes.a.share.kv"}),
        ({"classes": {"a": {"urgency": 0, "share": {"prefill": 0}}}}, {"classes.a.share.prefill"}),
        ({"limits": {"prefill": 1}}, {"limits.prefill"}),
        ({"built_limits": []}, {"built_limits"}),
        ({"tenant_weights": {"t": -1}}, {"tenant_weights.t"}),
        ({"cached_weight": 1.5}, {"cached_weight"}),
        ({"tenant_share_of_free": 0.5}, {"tenant_share_of_free"}),
        ({"ageing_every": 0}, {"ageing_every"}),
        ({"min_retry_after_s": 90}, {"min_retry_after_s"}),
        (
            {"min_retry_after_s": 90, "cached_weight": 3, "x": 1},
            {"min_retry_after_s", "cached_weight", "x"},
        ),
    ],
)
def test_what_is_wrong_is_named(section: dict[str, Any], paths: set[str]) -> None:
    assert wrong(section) == {f"admission.{path}" for path in paths}


def test_a_misspelt_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="clases: unknown key; did you mean 'classes'"):
        read({"clases": {}})
