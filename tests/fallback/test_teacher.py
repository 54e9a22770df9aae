"""The committed teacher: its files, its manifest, and what it knows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from weir import samples

REQUIRED = {
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture
def teacher(repo_root: Path) -> Path:
    return repo_root / "platform" / "weir" / "artifacts" / "teacher"


@pytest.fixture
def manifest(teacher: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((teacher / "manifest.json").read_text())
    return loaded


def _json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_manifest_hashes_every_file(teacher: Path, manifest: dict[str, Any]) -> None:
    files = {path.name: path for path in teacher.iterdir() if path.name != "manifest.json"}
    assert set(files) >= REQUIRED
    assert manifest["sha256"] == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()
    }
    assert (teacher / "model.safetensors").stat().st_size <= 16_000_000


def test_manifest_belongs_to_this_corpus(manifest: dict[str, Any]) -> None:
    assert manifest["corpus_version"] == samples.CORPUS_VERSION
    assert set(manifest["held_out"]["intents"]) == set(samples.INTENTS)
    assert manifest["training"]["tokens"] > 0
    assert manifest["training"]["minutes"] <= 60


def test_the_teacher_meets_its_target(manifest: dict[str, Any]) -> None:
    groups = manifest["held_out"]["groups"]
    assert groups["common"]["accuracy"] >= 0.95
    assert groups["common"]["n"] >= 60 * sum(g == "common" for g in samples.INTENTS.values())
    assert groups["rare"]["accuracy"] < groups["common"]["accuracy"] - 0.1  # the long tail shows


def test_generation_stops_at_the_end_of_a_turn(teacher: Path) -> None:
    tokens = {t["content"]: t["id"] for t in _json(teacher / "tokenizer.json")["added_tokens"]}
    for name in ("config.json", "generation_config.json"):
        assert _json(teacher / name)["eos_token_id"] == tokens["<|end|>"]
    assert "<|assistant|>" in _json(teacher / "tokenizer_config.json")["chat_template"]


def test_the_model_fits_the_engines(teacher: Path) -> None:
    config = _json(teacher / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == 2048
    assert config["num_key_value_heads"] % 2 == 0
    assert config["vocab_size"] % 64 == 0


@pytest.mark.engine
def test_it_answers_held_out_questions(teacher: Path) -> None:
    from transformers import LlamaForCausalLM

    from fallback.training import tokenization
    from fallback.training.evaluation import answer, score

    common = [name for name, group in samples.INTENTS.items() if group == "common"]
    examples = list(samples.requests(99, 6 * len(common), intents=common))
    model = LlamaForCausalLM.from_pretrained(teacher, dtype="float32")
    answers = answer(model, tokenization.load(teacher), examples)
    assert score(examples, answers)["common"].accuracy >= 0.9
