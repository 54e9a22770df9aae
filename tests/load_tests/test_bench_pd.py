"""The disaggregation bench's rows, marks and options."""

from __future__ import annotations

import pytest

from load_tests import bench_pd
from load_tests.disaggregation.fleets import ADAPTIVE, contenders


def test_every_row_has_the_same_hardware() -> None:
    for contender in contenders():
        roles = contender.roles(8)
        assert len(roles) in (0, 8)
        assert roles.count("prefill") == contender.prefill
        assert "mixed" not in roles


def test_the_mark_is_over_the_best_fixed_choice() -> None:
    goodput = {"never, all mixed": 2.0, "always, 4P+4D": 4.0, "llm-d, 4P+4D": 9.0, ADAPTIVE: 5.0}
    kinds = {c.name: c.kind for c in contenders()}
    rows = [
        {
            "table": "chat and documents, load 1",
            "system": name,
            "kind": kinds[name],
            "goodput_req_per_s": value,
            "offered_req_per_s": 6.0,
        }
        for name, value in goodput.items()
    ]
    mark, most = bench_pd.marks_of(rows)
    assert mark.value == pytest.approx(1.25)
    assert mark.target == 1.2
    assert mark.met
    assert most.value == pytest.approx(1.5)
