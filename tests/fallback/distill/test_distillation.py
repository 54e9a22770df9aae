"""The whole command on a tiny GPT-2 pair: it learns, resumes exactly, and leaves a good folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fallback.distill import command, loop
from fallback.distill.corpus import JsonlCorpus
from fallback.distill.export import file_hashes
from fallback.distill.feed import pad
from fallback.distill.generations import Sampling, generate, own_samples, retold
from fallback.distill.models import KeptLogits, load_model, parameter_count
from fallback.distill.plan import Progress
from fallback.distill.signals import Opinions

from .conftest import Pair

STEPS = 12


def _words(pair: Pair, out: Path, *more: str) -> list[str]:
    return [
        str(pair.teacher), "--data", str(pair.data), "--student-config", str(pair.student_config),
        "--out", str(out), "--steps", str(STEPS), "--max-tokens", "512", "--precision", "fp32",
        "--save-every", "4", "--log-every", "2", "--text-pools", "1", "--warmup-steps", "2",
        "--top-k", "6", "--sequence-share", "0.35", "--on-policy-share", "0.35", "--cpu", *more,
    ]  # fmt: skip


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return {name: tensor.float() for name, tensor in model.state_dict().items()}


def _same(one: Path, other: Path) -> bool:
    left, right = _weights(one), _weights(other)
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def finished(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "student"
    assert command.main(_words(pair, out)) == 0
    return out


def test_any_pair_of_one_tokenizer_can_be_distilled(pair: Pair, finished: Path) -> None:
    student = load_model(str(finished))
    teacher = load_model(str(pair.teacher))
    assert student.config.model_type == "gpt2"
    assert parameter_count(student) * 6 <= parameter_count(teacher)
    assert AutoTokenizer.from_pretrained(finished).get_vocab() == (
        AutoTokenizer.from_pretrained(pair.teacher).get_vocab()
    )
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["sha256"] == file_hashes(finished)
    assert manifest["parameters"] == parameter_count(student)
    assert manifest["training"]["steps"] == STEPS
    assert manifest["lineage"]["mixture"]["top_k"] == 6
    assert 0 < manifest["training"]["mfu"] <= manifest["training"]["hfu"] < 1


def test_it_learns_and_draws_each_part(finished: Path) -> None:
    history = json.loads(finished.with_name("student-loss.json").read_text())
    assert {"kl", "truth", "teacher", "on_policy", "loss"} <= {
        k for point in history for k in point
    }
    assert history[-1]["step"] == STEPS
    kls = [point["kl"] for point in history if "kl" in point]
    assert kls[-1] < kls[0]
    assert finished.with_name("student-loss.png").stat().st_size > 1000


def test_a_killed_run_resumes_to_the_same_weights(
    pair: Pair, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "student"
    texts = finished.with_name("student.cache") / "texts"
    words = _words(pair, out, "--texts", str(texts))
    real = loop.train_step

    def dies(bench: loop.Bench, progress: Progress) -> loop.Parts:
        if progress.step == 7:
            raise KeyboardInterrupt
        return real(bench, progress)

    monkeypatch.setattr(loop, "train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        command.main(words)
    assert not out.exists()
    monkeypatch.setattr(loop, "train_step", real)
    assert command.main([*words, "--resume"]) == 0
    assert _same(out, finished)
    history = [
        json.loads(each.with_name("student-loss.json").read_text()) for each in (out, finished)
    ]
    assert [point["step"] for point in history[0]] == [point["step"] for point in history[1]]


def test_cached_opinions_are_read_back(pair: Pair, tmp_path: Path) -> None:
    model = KeptLogits(load_model(str(pair.teacher)))
    batch = pad([([3, 4, 5, 6], [0.0, 1.0, 1.0, 1.0])], 0)
    places = batch.places()
    first = Opinions(model, 4, 2.0, tmp_path).of(batch, places, "a")
    model.model.zero_grad()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    again = Opinions(model, 4, 2.0, tmp_path).of(batch, places, "a")
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.log_probs, again.log_probs)
    assert torch.equal(first.rest, again.rest)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--max-share", "0.01"), "parameters"),
        (("--resume",), "no checkpoint"),
        (("--temperature", "0"), "temperature"),
        (("--student-config", "/nowhere.json"), "nowhere"),
    ],
)
def test_what_cannot_be_used_is_named(
    pair: Pair, tmp_path: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(_words(pair, tmp_path / "s", *more)) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("source", ["gpt2", "desk"])
def test_logits_where_asked_are_the_models_own(pair: Pair, source: str) -> None:
    model = load_model(str(pair.teacher) if source == "gpt2" else "builtin:teacher")
    ids = torch.randint(2, 12, (3, 9), generator=torch.Generator().manual_seed(1))
    places = torch.tensor([0, 7, 9, 23])
    kept = KeptLogits(model)
    assert kept.short
    with torch.no_grad():
        whole = model(input_ids=ids).logits[:, :-1].flatten(0, 1)[places]
        assert torch.allclose(kept(ids, places), whole, atol=1e-4)


def test_a_model_that_caps_its_logits_computes_them_all(pair: Pair) -> None:
    model = load_model(str(pair.teacher))
    real = model.forward

    def capped(*args: Any, **options: Any) -> Any:
        output = real(*args, **options)
        output.logits = torch.tanh(output.logits / 2) * 2
        return output

    model.forward = capped
    kept = KeptLogits(model)
    assert not kept.short
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        assert float(kept(ids, torch.tensor([0, 1])).abs().max()) <= 2.0


def test_batched_generation_says_what_one_by_one_says(pair: Pair) -> None:
    model = load_model(str(pair.teacher))
    prompts = [[3, 4, 5], [6], [7, 8, 9, 10, 11, 3]]
    sampling = Sampling(max_new_tokens=8, batch=2)
    together = generate(model, prompts, 0, sampling)
    assert together == [generate(model, [prompt], 0, sampling)[0] for prompt in prompts]


def test_answers_are_retold_in_place(pair: Pair) -> None:
    model = load_model(str(pair.teacher))
    row = ([3, 4, 5, 6, 7, 8], [0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    sampling = Sampling(max_new_tokens=3)
    (ids, weights), *none = retold(model, [row, ([3, 4], [0.0, 0.0])], 0, sampling)
    first = generate(model, [[3, 4]], 0, sampling)[0]
    second = generate(model, [[3, 4, 5, 6]], 0, sampling)[0]
    assert none == []
    assert ids == [3, 4, *first, 6, *second]
    assert weights == [0, 0, *[1] * len(first), 0, *[1] * len(second)]


def test_own_samples_leave_the_student_in_training(pair: Pair) -> None:
    import random

    model = load_model(str(pair.teacher)).train()
    row = ([3, 4, 5, 6], [0.0, 0.0, 1.0, 1.0])
    made = own_samples(model, [row], 0, Sampling(4, 1.0), random.Random(1))
    assert made[0][0][:2] == [3, 4]
    assert model.training


def test_a_file_is_read_again_in_another_order(pair: Pair) -> None:
    tokenizer = AutoTokenizer.from_pretrained(pair.teacher)
    corpus = JsonlCorpus(pair.data, tokenizer, 1, 64)
    rows = corpus.rows(0)
    assert len(rows) == 256
    assert sorted(map(str, rows[:41])) == sorted(map(str, rows[41:82]))
    assert rows[:41] != rows[41:82]
    learned = [row for row in rows if 0.0 in row[1]]
    assert learned
    assert all(sum(weights) == 4 for _, weights in learned)
    assert pad(rows[:3], 0).ids.shape[1] % 32 == 0
