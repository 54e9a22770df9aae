"""The committed student: its files, its manifest, its size, and what it knows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from weir import samples
from weir.registry.manifest import read_manifest, verify_folder


@pytest.fixture
def artifacts(repo_root: Path) -> Path:
    return repo_root / "platform" / "weir" / "artifacts"


@pytest.fixture
def student(artifacts: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((artifacts / "student" / "manifest.json").read_text())
    return loaded


@pytest.fixture
def teacher(artifacts: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((artifacts / "teacher" / "manifest.json").read_text())
    return loaded


def test_the_manifest_vouches_for_every_file(artifacts: Path, student: dict[str, Any]) -> None:
    parsed = read_manifest(artifacts / "student")
    assert parsed is not None
    verify_folder(artifacts / "student", parsed)
    assert parsed.confidence is not None
    assert parsed.confidence.threshold <= 1
    assert student["corpus_version"] == samples.CORPUS_VERSION
    assert set(student["metrics"]["accuracy"]) == set(samples.INTENTS)


def test_it_is_the_shipped_teachers_student(
    artifacts: Path, student: dict[str, Any], teacher: dict[str, Any]
) -> None:
    weights = (artifacts / "teacher" / "model.safetensors").read_bytes()
    assert student["lineage"]["teacher_sha256"] == hashlib.sha256(weights).hexdigest()
    assert student["parameters"] * 6 <= teacher["parameters"]
    same = [(artifacts / name / "tokenizer.json").read_bytes() for name in ("teacher", "student")]
    assert same[0] == same[1]


def test_it_keeps_nine_tenths_of_the_teacher(
    student: dict[str, Any], teacher: dict[str, Any]
) -> None:
    common = [m["held_out"]["groups"]["common"]["accuracy"] for m in (student, teacher)]
    assert common[0] >= 0.9 * common[1]


@pytest.mark.engine
def test_it_answers_held_out_questions(artifacts: Path, student: dict[str, Any]) -> None:
    from fallback.distill.models import load_model, load_tokenizer
    from fallback.evaluation.answers import answer_all

    common = [name for name, group in samples.INTENTS.items() if group == "common"]
    examples = list(samples.requests(99, 3 * len(common), intents=common))
    answers = answer_all(load_model("builtin:student"), load_tokenizer("builtin:student"), examples)
    pairs = zip(examples, answers, strict=True)
    right = sum(samples.check(example, answer.text) for example, answer in pairs)
    stated = student["held_out"]["groups"]["common"]["accuracy"]
    # Four standard errors of 48 questions.
    assert right / len(examples) >= stated - 4 * (max(0.01, stated * (1 - stated)) / 48) ** 0.5
