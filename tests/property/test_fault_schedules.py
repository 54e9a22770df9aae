"""Seeded fault schedules over the real gateway in virtual time; planted bugs are found."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from deployments.gateway.prompts import PromptEncoder
from deployments.testing.words import word_encoder
from load_tests.faults.planted import PLANTED
from load_tests.faults.playing import play_story
from load_tests.faults.story import draw_story

STORIES = 600
MOST_TO_FIND = 150


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return word_encoder(tmp_path_factory.mktemp("words"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


def test_nothing_is_lost_or_counted_twice(encoder: PromptEncoder) -> None:
    counts: Counter[str] = Counter()
    for seed in range(STORIES):
        story = draw_story(seed)
        result = play_story(story, encoder)
        assert not result.findings, "\n".join([str(story), *map(str, result.findings)])
        counts += result.counts
    # The schedules reach what they are for.
    assert counts["moves_with_tokens"] > STORIES / 20
    assert counts["clients_left"] > STORIES / 4
    assert counts["refused_at_the_gate"] > 0
    assert counts["handed_over"] > STORIES
    assert counts["lost_in_handing_over"] > STORIES / 50
    assert counts["requests"] > 3 * STORIES


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(encoder: PromptEncoder, bug: str) -> None:
    plant, rules = PLANTED[bug]
    with plant():
        for seed in range(MOST_TO_FIND):
            findings = play_story(draw_story(seed), encoder).findings
            if findings:
                break
    assert {finding.rule for finding in findings} & rules, findings


def test_a_story_is_the_same_each_time(encoder: PromptEncoder) -> None:
    for seed in range(5):
        assert str(draw_story(seed)) == str(draw_story(seed))
        first, second = (play_story(draw_story(seed), encoder) for _ in range(2))
        assert first == second
