"""Answers with their log-probabilities, and the command on models that are cheap to ask."""

import json
import math
from pathlib import Path

import pytest
import torch

from fallback.distill.feed import pad
from fallback.distill.models import load_model, load_tokenizer
from fallback.evaluation import command
from fallback.evaluation.answers import Answer, answer_all, prompt_ids
from fallback.evaluation.figures import Split, accuracies, confidence, perplexity, speed
from weir import samples


def _split(seed: int) -> Split:
    """Answers that are right where they are sure, mostly."""
    examples = list(samples.requests(seed, 10 * len(samples.INTENTS)))
    answers = [
        Answer(e.answer, (-0.01, -0.02), (0.1, 0.1))
        if number % 3
        else Answer("no idea", (-1.0, -0.5 - number / 1000), (1.0, 2.0))
        for number, e in enumerate(examples)
    ]
    return Split(examples, answers)


def test_confidence_is_fitted_on_one_split_and_verified_on_another() -> None:
    found = confidence(_split(1), _split(2), 0.95)
    assert found["signal"] == "mean_logprob"
    assert found["reachable"]
    assert -0.5 < found["threshold"] < 0
    assert found["verified"]["accuracy"] == 1.0
    assert found["verified"]["coverage"] == pytest.approx(2 / 3, abs=0.01)
    assert found["auroc"] == 1.0
    assert found["first_tokens"] == 1
    assert {row["signal"] for row in found["signals"]} == {"mean_logprob", "neg_entropy"}


def test_accuracy_counts_both_splits_by_intent_and_group() -> None:
    found = accuracies([_split(1), _split(2)])
    assert set(found["intents"]) == set(samples.INTENTS)
    assert all(each["n"] == 20 for each in found["intents"].values())
    assert found["groups"]["common"]["accuracy"] == pytest.approx(2 / 3, abs=0.02)


def test_means_are_over_the_first_tokens_only() -> None:
    answer = Answer("x", (-1.0, -3.0), (0.5,))
    assert answer.mean_log_prob(1) == -1.0
    assert answer.mean_log_prob(9) == -2.0
    assert answer.mean_entropy(4) == 0.5
    assert Answer("", (), ()).mean_log_prob(4) == 0.0


@pytest.mark.engine
def test_log_probabilities_are_those_of_a_plain_forward_pass() -> None:
    model, tokenizer = load_model("builtin:teacher"), load_tokenizer("builtin:teacher")
    examples = list(samples.requests(5, 4))
    answers = answer_all(model, tokenizer, examples, max_new_tokens=12, batch=3)
    ids = prompt_ids(tokenizer, examples)[0]
    said: list[int] = []
    for expected in answers[0].log_probs:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*ids, *said]])).logits[0, -1]
        said.append(int(logits.argmax()))
        assert float(logits.log_softmax(-1).max()) == pytest.approx(expected, abs=1e-3)
    assert tokenizer.decode(said, skip_special_tokens=True) == answers[0].text


@pytest.mark.engine
def test_perplexity_is_the_mean_over_what_is_learned() -> None:
    model = load_model("builtin:teacher")
    ids = torch.randint(6, 2000, (7,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = [(ids, [0.0, 0.0, 1.0, 0.5, 1.0, 1.0, 0.0]), (ids[:3], [0.0, 1.0, 1.0])]
    total, count = 0.0, 0
    with torch.inference_mode():
        for row, weights in rows:
            scores = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
            for place in range(1, len(row)):
                if weights[place] == 1.0:
                    total -= float(scores[place - 1, row[place]])
                    count += 1
    found = perplexity(model, rows, 0)
    assert found == pytest.approx(math.exp(total / count), rel=1e-3)
    assert pad(rows, 0).real_tokens == 10
    assert all(value > 0 for value in speed(model, 0.0).values())


@pytest.mark.engine
def test_the_command_judges_and_its_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, picture = tmp_path / "eval.json", tmp_path / "eval.png"
    words = ["builtin:teacher", "--per-intent", "1", "--json", "--out", str(out)]
    words += ["--picture", str(picture), "--max-ece", "-1", "--max-kept-shortfall", "-1"]
    assert command.main(words) == 1  # the teacher is no small student of itself
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["gate"]["failures"] == [
        "teacher: max_parameter_share: 1, must be at most 0.1667"
    ]
    assert {mark["name"]: mark["met"] for mark in printed["marks"]}["teacher: min_common_ratio"]
    assert picture.stat().st_size > 10_000
    words += ["--max-parameter-share", "1", "--reuse", str(out)]
    with monkeypatch.context() as patched:
        patched.setattr("fallback.distill.models.load_model", lambda _: pytest.fail("asked again"))
        assert command.main(words) == 0


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["builtin:nothing", "--teacher", "builtin:nothing"]) == 2
    assert "builtin:nothing" in capsys.readouterr().err
