"""The gate: each bound bites, missing figures do not pass, the registry can read the verdict."""

import json
from pathlib import Path
from typing import Any

import pytest

from fallback.evaluation.gate import QUANTIZED, STUDENT, Check, Gate, checks, judge
from weir.registry.gate import read_gate_report


def _figures(common: float = 0.9, rare: float = 0.3, **more: Any) -> dict[str, Any]:
    return {
        "held_out": {
            "groups": {"common": {"accuracy": common, "n": 9}, "rare": {"accuracy": rare, "n": 9}},
            "intents": {"order_eta": {"group": "common", "accuracy": common, "n": 9}},
        },
        "confidence": {
            "ece": 0.03,
            "target_accuracy": 0.95,
            "verified": {"coverage": 0.5, "accuracy": 0.95},
        },
        "perplexity": 1.3,
        "parameters": 100,
        "weight_bytes": 200,
    } | more


TEACHER = _figures(1.0, 0.4, perplexity=1.2, parameters=1000, weight_bytes=2000)


def test_a_good_student_passes_every_check() -> None:
    verdict = judge(_figures(), TEACHER, STUDENT)
    assert verdict["passed"]
    assert verdict["failures"] == []
    assert {check["name"] for check in verdict["checks"]} == {
        "min_common_ratio",
        "max_perplexity_ratio",
        "max_ece",
        "max_kept_shortfall",
        "max_parameter_share",
    }
    assert verdict["metrics"]["accuracy"] == {"order_eta": 0.9}


@pytest.mark.parametrize(
    ("worse", "named"),
    [
        ({"common": 0.89}, "min_common_ratio"),
        ({"perplexity": 2.5}, "max_perplexity_ratio"),
        ({"parameters": 167}, "max_parameter_share"),
        ({"confidence": {"ece": 0.09, "target_accuracy": 0.9, "verified": {}}}, "max_ece"),
        (
            {
                "confidence": {
                    "ece": 0.01,
                    "target_accuracy": 0.95,
                    "verified": {"coverage": 0.5, "accuracy": 0.9},
                }
            },
            "max_kept_shortfall",
        ),
        ({"perplexity": None}, "max_perplexity_ratio"),
    ],
)
def test_each_bound_bites_alone(worse: dict[str, Any], named: str) -> None:
    verdict = judge(_figures(**worse), TEACHER, STUDENT)
    assert not verdict["passed"]
    assert [text.partition(":")[0] for text in verdict["failures"]] == [named]


def test_a_bound_is_inside_and_none_is_not_asked() -> None:
    assert Check("max_ece", 0.08, 0.08, "lower").passed
    assert Check("min_common_ratio", 0.9, 0.9, "higher").passed
    asked = checks(_figures(), TEACHER, Gate(*[None] * 7))
    assert asked == ()


def test_quantized_models_are_held_closer_to_the_original() -> None:
    near = _figures(0.99, 0.39, perplexity=1.25, parameters=1000, weight_bytes=1200)
    assert judge(near, TEACHER, QUANTIZED)["passed"]
    assert not judge(near | {"weight_bytes": 1900}, TEACHER, QUANTIZED)["passed"]


def test_the_registry_reads_the_verdict(tmp_path: Path) -> None:
    for figures, passed in ((_figures(), True), (_figures(0.1), False)):
        file = tmp_path / f"{passed}.json"
        file.write_text(json.dumps({"gate": judge(figures, TEACHER, STUDENT)}))
        report = read_gate_report(file)
        assert report.passed is passed
        assert bool(report.failures) is not passed
        assert report.metrics["common"] in (0.9, 0.1)
