"""What the settings refuse about students."""

from __future__ import annotations

from typing import Any

import pytest

from weir.settings import SettingsError, parse_settings


def tree(teacher: dict[str, Any], student: dict[str, Any] | None = None) -> dict[str, Any]:
    models = [{"name": "t", "source": "x", "fallback": teacher}]
    models.append({"name": "s", "source": "y", **(student or {})})
    return {"models": models}


def test_a_student_is_a_served_model() -> None:
    settings = parse_settings(tree({"student": "s"}), "test")
    assert settings.models[0].fallback is not None
    assert settings.models[0].fallback.overload.classes == ("interactive",)
    assert not settings.models[0].fallback.cascade.enabled


@pytest.mark.parametrize(
    ("teacher", "student", "said"),
    [
        ({"student": "nobody"}, {}, r"models\[0\].fallback.student: no model named 'nobody'"),
        ({"student": "t"}, {}, "'t' has a fallback of its own"),
        ({"student": "s"}, {"fallback": {"student": "t"}}, "has a fallback of its own"),
        ({"student": "s", "overload": {"enter_at": 0.2}}, {}, "leave_at must be below enter_at"),
        ({"student": "s", "failure": {"open_s": 60}}, {}, "max_open_s must be at least open_s"),
        ({"student": "s", "cascade": {"threshold": 0.5}}, {}, "less than or equal to 0"),
        ({"student": "s", "moods": {}}, {}, "moods: unknown key"),
        ({}, {}, "student: missing"),
    ],
)
def test_what_cannot_work_is_named(
    teacher: dict[str, Any], student: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_settings(tree(teacher, student), "test")


def test_autoscaling_grows() -> None:
    scaling = {"min_replicas": 3, "max_replicas": 2}
    with pytest.raises(SettingsError, match="max_replicas must be at least min_replicas"):
        parse_settings({"models": [{"name": "m", "source": "x", "autoscaling": scaling}]}, "test")
