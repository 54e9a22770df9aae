"""``weir bench planner``: what the planner foretells is near what others published."""

import json

from load_tests import bench_planner
from load_tests.planner.fitting import errors, fit, median_error
from load_tests.planner.published import PUBLISHED
from weir.planner.roofline import Efficiencies


def test_it_prints_every_published_figure_once(capsys):
    assert bench_planner.main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    figures = [row for row in told["rows"] if row["table"] == "figures"]
    assert len(figures) == sum(len(one.rows) for one in PUBLISHED)
    assert all(row["foretold_tokens_per_s"] > 0 for row in figures)


def test_unseen_figures_are_foretold():
    unseen = [one for one in PUBLISHED if not one.fitted]
    assert len(unseen) >= 5
    assert median_error(unseen, Efficiencies()) < 0.2


def test_the_fit_is_better_than_the_middle_of_the_bounds():
    fitted = [one for one in PUBLISHED if one.fitted]
    assert median_error(fitted, fit(3)) < 0.15


def test_errors_are_signed():
    fast = Efficiencies(matrices=1, attention=1, memory=1, links=1, step_s=0, layer_hop_s=0)
    assert all(error > 0 for error in errors(PUBLISHED[0], fast))
