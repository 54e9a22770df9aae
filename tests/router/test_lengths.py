"""How long answers are expected to be."""

from __future__ import annotations

import random

import pytest

from router.lengths import LengthParams, OutputLengths

NO_LIMIT = 1 << 16


def taught(tokens: int, answers: int = 200, tenant: str = "t", name: str = "c") -> OutputLengths:
    lengths = OutputLengths()
    for _ in range(answers):
        lengths.observe(tenant, name, tokens, NO_LIMIT, complete=True)
    return lengths


def test_before_anything_is_learned_a_usual_answer_or_the_limit():
    lengths = OutputLengths()
    assert lengths.expected_tokens("t", "c", NO_LIMIT) == 256
    assert lengths.expected_tokens("t", "c", 16) == 16
    assert lengths.expected_tokens("t", "c", 0) == 0


def test_what_a_tenant_gets_is_learned_and_capped():
    lengths = taught(1000)
    assert lengths.expected_tokens("t", "c", NO_LIMIT) == pytest.approx(1000, rel=0.1)
    assert lengths.expected_tokens("t", "c", 300) == 300


def test_tenants_and_classes_are_told_apart_and_newcomers_borrow():
    lengths = OutputLengths()
    for _ in range(200):
        lengths.observe("long", "c", 1000, NO_LIMIT, complete=True)
        lengths.observe("short", "c", 10, NO_LIMIT, complete=True)
    assert lengths.expected_tokens("long", "c", NO_LIMIT) > 900
    assert lengths.expected_tokens("short", "c", NO_LIMIT) < 100
    assert 350 < lengths.expected_tokens("new", "c", NO_LIMIT) < 650


def test_one_answer_does_not_overrule_what_others_say():
    lengths = taught(100)
    lengths.observe("new", "c", 5000, NO_LIMIT, complete=True)
    assert lengths.expected_tokens("new", "c", NO_LIMIT) < 2000


def test_broken_off_answers_do_not_teach_that_answers_are_short():
    rng = random.Random(3)
    lengths = OutputLengths()
    for _ in range(5000):  # answers of 400 tokens on average, half of them broken off at random
        whole = 1 + int(rng.expovariate(1 / 400))
        left_at = 1 + int(rng.expovariate(1 / 400))
        seen, complete = min(whole, left_at), whole <= left_at
        lengths.observe("t", "c", seen, NO_LIMIT, complete)
    assert 250 < lengths.expected_tokens("t", "c", NO_LIMIT) < 650


def test_what_is_always_cut_at_its_limit_is_expected_to_reach_it():
    lengths = OutputLengths()
    for _ in range(100):
        lengths.observe("t", "c", 500, 500, complete=True)
    assert lengths.expected_tokens("t", "c", 500) == 500
    assert lengths.expected_tokens("t", "c", 1000) == 1000


def test_answers_without_a_token_say_nothing():
    lengths = taught(100)
    before = lengths.expected_tokens("t", "c", NO_LIMIT)
    for _ in range(100):
        lengths.observe("t", "c", 0, NO_LIMIT, complete=False)
    assert lengths.expected_tokens("t", "c", NO_LIMIT) == before


def test_a_change_is_followed():
    lengths = taught(1000)
    for _ in range(200):
        lengths.observe("t", "c", 50, NO_LIMIT, complete=True)
    assert lengths.expected_tokens("t", "c", NO_LIMIT) < 150


def test_tenants_that_did_not_come_for_long_are_forgotten():
    lengths = OutputLengths(LengthParams(remembered=10))
    for n in range(100):
        lengths.observe(f"t{n}", "c", 10, NO_LIMIT, complete=True)
    assert len(lengths._tenants) == 10
