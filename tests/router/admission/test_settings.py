"""The settings say what is wrong, and where."""

from __future__ import annotations

import pytest

from router.admission import AdmissionSettings, Share, parse_settings
from weir.errors import ConfigError


def test_defaults():
    settings = parse_settings({})
    assert settings == AdmissionSettings()
    assert settings.enabled
    assert [c.name for c in settings.classes] == ["interactive", "standard", "batch"]
    assert [c.urgency for c in settings.classes] == [0, 1, 2]


def test_everything_can_be_given():
    settings = parse_settings(
        {
            "enabled": True,
            "classes": {
                "gold": {"urgency": 0, "weight": 4, "share": {"prefill": 0.9}},
                "iron": {"urgency": 0, "within": "short-first", "on_hopeless": "shed"},
            },
            "limits": {"prefill": {"tokens": 2048}, "kv": None},
            "tenant_weights": {"acme": 2.0},
        }
    )
    gold, iron = settings.classes
    assert (gold.weight, gold.share) == (4, Share(prefill=0.9))
    assert (iron.within, iron.on_hopeless) == ("short-first", "shed")
    assert settings.limits == {"prefill": {"tokens": 2048}, "kv": None}
    assert len(settings.built_limits) == len(AdmissionSettings().built_limits) - 1
    assert (settings.tenant_weight("acme"), settings.tenant_weight("other")) == (2.0, 1.0)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"clases": {}}, "admission.clases"),
        ({"classes": {}}, "admission.classes"),
        ({"classes": []}, "admission.classes"),
        ({"classes": {"a": {}}}, "admission.classes.a.urgency"),
        ({"classes": {"a": {"urgency": -1}}}, "admission.classes.a.urgency"),
        ({"classes": {"a": {"urgency": 0, "name": "b"}}}, "admission.classes.a.name"),
        ({"classes": {"a": {"urgency": 0, "wieght": 1}}}, "admission.classes.a.wieght"),
        ({"classes": {"a": {"urgency": 0, "weight": 0}}}, "admission.classes.a.weight"),
        ({"classes": {"a": {"urgency": 0, "max_requests": 0}}}, "admission.classes.a.max_requests"),
        ({"classes": {"a": {"urgency": 0, "within": "lifo"}}}, "admission.classes.a.within"),
        ({"classes": {"a": {"urgency": 0, "max_wait_s": "x"}}}, "admission.classes.a"),
        ({"classes": {"a": {"urgency": 0, "share": {"kv": 2}}}}, "share.kv"),
        ({"limits": {"prefil": {}}}, "admission.limits: unknown admission limit 'prefil'"),
        ({"limits": {"prefill": 1}}, "admission.limits.prefill"),
        ({"limits": {"prefill": {"tokns": 1}}}, "admission.limits prefill.tokns"),
        ({"built_limits": []}, "admission.built_limits"),
        ({"tenant_weights": {"t": -1}}, "admission.tenant_weights.t"),
        ({"cached_weight": 1.5}, "admission.cached_weight"),
        ({"tenant_share_of_free": 0.5}, "admission.tenant_share_of_free"),
        ({"ageing_every": 0}, "admission.ageing_every"),
        ({"min_retry_after_s": 90}, "admission.min_retry_after_s"),
    ],
)
def test_what_is_wrong_is_named(data, path):
    with pytest.raises(ConfigError, match=path.replace(".", r"\.")):
        parse_settings(data)
