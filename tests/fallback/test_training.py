"""The train loop: schedule, learning, checkpoints, scores."""

import itertools
import random
from pathlib import Path

import pytest
import torch

from fallback.training import tokenization
from fallback.training.batches import Batch, batches, drill
from fallback.training.circuits import seed_copying
from fallback.training.evaluation import score
from fallback.training.loop import (
    Learner,
    Progress,
    TrainingPlan,
    batch_loss,
    learning_rate,
    load_checkpoint,
    make_learner,
    save_checkpoint,
    train,
)
from fallback.training.model import Shape, build, parameter_count
from weir import samples

TINY = Shape(hidden=32, layers=1, heads=2, kv_heads=1, mlp=48)
PLAN = TrainingPlan(steps=6, max_tokens=1024, workers=1, compiled=False, warmup_steps=2)


@pytest.fixture(scope="module")
def raw() -> tokenization.Tokenizer:
    return tokenization.train_tokenizer(1, vocab_size=400, n_conversations=40)


def _train(raw: tokenization.Tokenizer, plan: TrainingPlan = PLAN) -> tuple[Learner, Progress]:
    learner, progress = make_learner(build(TINY, raw, plan.seed), plan), Progress()
    train(learner, batches(raw, 1, plan.max_tokens), plan, progress, lambda _: "", lambda _: None)
    return learner, progress


def test_the_rate_warms_up_and_comes_down() -> None:
    rates = [learning_rate(PLAN, Progress(step=step)) for step in range(7)]
    assert rates[0] < rates[1]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] == pytest.approx(0.02 * PLAN.learning_rate)


def test_a_plan_ends_by_minutes_or_by_steps() -> None:
    assert Progress(step=3).fraction(PLAN) == 0.5
    assert Progress(step=3, minutes=10).fraction(TrainingPlan(minutes=40)) == 0.25
    assert Progress(step=99).fraction(PLAN) == 1.0


def test_training_is_seeded_counts_tokens_and_learns(raw: tokenization.Tokenizer) -> None:
    (one, first), (two, second) = _train(raw), _train(raw)
    assert first.losses == second.losses
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True)
    )
    seen = itertools.islice(batches(raw, 1, PLAN.max_tokens), 6)
    assert first.tokens == sum(batch.tokens for batch in seen)
    assert first.losses[-1] < first.losses[0]


def test_padding_does_not_change_the_loss(raw: tokenization.Tokenizer) -> None:
    learner = make_learner(build(TINY, raw, 1), PLAN)
    batch = next(batches(raw, 1, 1024))
    wider = type(batch)(
        ids=torch.nn.functional.pad(batch.ids, (0, 32)),
        weights=torch.nn.functional.pad(batch.weights, (0, 32)),
        pool=0,
    )
    assert batch_loss(learner, wider).item() == pytest.approx(
        batch_loss(learner, batch).item(), rel=1e-3
    )


def test_a_checkpoint_restores_model_optimizer_and_progress(
    raw: tokenization.Tokenizer, tmp_path: Path
) -> None:
    learner, progress = _train(raw)
    path = tmp_path / "deep" / "checkpoint.pt"
    save_checkpoint(path, learner, progress)
    fresh = make_learner(build(TINY, raw, 2), PLAN)
    restored = load_checkpoint(path, fresh)
    assert (restored.step, restored.tokens) == (progress.step, progress.tokens)
    assert all(
        torch.equal(a, b)
        for a, b in zip(fresh.model.parameters(), learner.model.parameters(), strict=True)
    )
    assert fresh.optimizer.state_dict()["state"].keys() == {
        *learner.optimizer.state_dict()["state"].keys()
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_the_default_shape_is_small_and_splits_in_two(raw: tokenization.Tokenizer) -> None:
    model = build(Shape(), raw, 1)
    assert 3e6 < parameter_count(model) < 8e6
    assert model.config.num_key_value_heads % 2 == 0
    assert model.config.hidden_size // model.config.num_attention_heads in (32, 64)


def test_a_seeded_model_copies_before_it_is_trained(raw: tokenization.Tokenizer) -> None:
    rows = [drill(raw, random.Random(seed)) for seed in range(16)]
    batch = Batch(torch.tensor([r[0] for r in rows]), torch.tensor([r[1] for r in rows]), 0)
    model = build(Shape(layers=2), raw, 1)
    plain = batch_loss(make_learner(model, PLAN), batch).item()
    seed_copying(model, 1)
    assert batch_loss(make_learner(model, PLAN), batch).item() < plain - 1.0


def test_scores_count_by_intent_and_group() -> None:
    examples = list(samples.requests(1, 2 * len(samples.INTENTS)))
    answers = [example.answer for example in examples[: len(samples.INTENTS)]]
    answers += ["no idea"] * len(samples.INTENTS)
    scores = score(examples, answers)
    assert set(scores) == {*samples.INTENTS, "common", "rare"}
    assert all(value.accuracy == 0.5 for value in scores.values())
