"""Speculative decoding's settings become vLLM's schedule."""

import pytest
from pydantic import ValidationError

from weir.settings import SettingsError, parse_settings
from weir.settings.speculative import SpeculativeSettings


def test_nothing_is_proposed_above_the_batch() -> None:
    made = SpeculativeSettings(draft="x", tokens=4, max_batch=8).engine_argument("/models/x")
    assert made["method"] == "draft_model"
    assert made["model"] == "/models/x"
    assert made["num_speculative_tokens"] == 4
    (low, high, tokens), (above, _, none) = made["num_speculative_tokens_per_batch_size"]
    assert (low, high, tokens) == (1, 8, 4)
    assert (above, none) == (9, 0)


def test_it_is_off_unless_a_draft_is_named() -> None:
    assert SpeculativeSettings().draft is None
    with pytest.raises(ValidationError):
        SpeculativeSettings(tokens=0)


def test_the_engines_own_argument_is_set_here_only() -> None:
    model = {"name": "m", "source": "x", "engine": {"args": {"speculative_config": {}}}}
    with pytest.raises(SettingsError, match=r"models\[\]\.speculative"):
        parse_settings({"models": [model]}, "test")
