from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.batches.lines import RawLine
from deployments.batches.validating import slices
from weir.settings.batches import BatchesSettings, window_s


@given(st.lists(st.integers(1, 50_000), max_size=30))
def test_slices_have_all_lines_in_order(sizes: list[int]) -> None:
    lines = [RawLine(n, 0, size, b"") for n, size in enumerate(sizes)]
    made = slices(lines)
    assert [line for piece in made for line in piece] == lines
    assert all(made)
    for piece in made:
        assert sum(line.size for line in piece[:-1]) < 64 * 1024


@pytest.mark.parametrize(("window", "seconds"), [("30m", 1800), ("24h", 86_400), ("7d", 604_800)])
def test_windows_are_times(window: str, seconds: int) -> None:
    assert window_s(window) == seconds
    assert BatchesSettings(completion_windows=(window,)).completion_windows == (window,)


@pytest.mark.parametrize("window", ["", "24", "0h", "1w", "-1h", "24h\n"])
def test_what_is_no_window_is_refused(window: str) -> None:
    with pytest.raises(ValueError):
        window_s(window)
    with pytest.raises(ValueError):
        BatchesSettings(completion_windows=(window,))
