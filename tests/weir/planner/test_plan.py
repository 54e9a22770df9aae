"""What the planner proposes: within the limits, by its own sums, the cheapest first."""

import json
import math
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.weir.cards.configs import LLAMA_31_8B
from tests.weir.planner.test_roofline import MOE
from weir.cards import make_card
from weir.cli.main import app
from weir.errors import ConfigError
from weir.planner.accelerators import find_accelerator
from weir.planner.api_prices import api_prices
from weir.planner.explain import explain
from weir.planner.output import settings_yaml
from weir.planner.plan import Question, engine_of, make_plan
from weir.planner.prior import assumed_capacity
from weir.planner.serving import Lengths, Slo, balance, best_rate, saturated
from weir.planner.traffic import Traffic, read_traffic
from weir.settings import load_settings

TRAFFIC = Traffic(20.0, 8.0, 2000, 300, 0.3)


def question(config=LLAMA_31_8B, traffic=TRAFFIC, slo=Slo(1.0, 0.05), names=("H100", "L4")):
    return Question(
        make_card(config), 4096, 32, 8, traffic, slo, [find_accelerator(n) for n in names]
    )


def test_options_are_sorted_by_cost_and_keep_the_limits():
    plan = make_plan(question())
    costs = [option.usd_per_hour for option in plan.options]
    assert costs == sorted(costs)
    for option in plan.options:
        if option.state is None:
            assert option.split is not None
            assert option.split.ttft_tail_s <= 1.0
            assert option.split.decode.tpot_s <= 0.05
        else:
            assert option.state.ttft_tail_s <= 1.0
            assert option.state.tpot_s <= 0.05
            assert option.replicas * option.state.rate_per_s >= 22.0 * (1 - 1e-9)


def test_what_is_refused_says_why():
    plan = make_plan(question(slo=Slo(1.0, 0.004), names=("L4",)))
    assert not plan.options
    assert all(option.refusal for option in plan.refused)
    assert "TPOT is" in plan.refused[0].refusal
    big = {**LLAMA_31_8B, "num_hidden_layers": 2000}
    told = make_plan(question(big, names=("L4",))).refused
    assert any("the weights do not fit" in option.refusal for option in told)
    short = {**LLAMA_31_8B, "max_position_embeddings": 1024}
    assert "takes 1,024" in make_plan(question(short)).refused[0].refusal


def test_experts_are_also_planned_with_data_parallel_attention():
    layouts = {option.layout.data for option in make_plan(question(MOE)).options}
    assert max(layouts) > 1


@settings(deadline=None, max_examples=30)
@given(st.floats(0.05, 200), st.floats(50, 20000), st.floats(10, 2000), st.floats(0, 0.9))
def test_more_traffic_never_costs_less(rate, prompt, output, cached):
    asked = question(traffic=Traffic(rate, rate, prompt, output, cached), names=("H100",))
    twice = replace(asked, traffic=replace(asked.traffic, peak_per_s=2 * rate))
    one, two = make_plan(asked).best, make_plan(twice).best
    assert (one is None) == (two is None)
    if one is not None and two is not None:
        assert one.usd_per_hour <= two.usd_per_hour


@settings(deadline=None, max_examples=40)
@given(st.floats(100, 8000), st.floats(20, 1500))
def test_balance_is_littles_law_and_the_best_rate_is_within_saturation(prompt, output):
    engine = engine_of(
        question(), find_accelerator("H100"), make_plan(question()).options[0].layout
    )
    lengths = Lengths(prompt, output)
    state = best_rate(engine, lengths, Slo(5.0, 0.2))
    assert state is not None
    assert state.rate_per_s <= saturated(engine, lengths)
    assert state.streams == pytest.approx(state.rate_per_s * output * state.step_s, rel=1e-3)
    slower = balance(engine, lengths, state.rate_per_s / 2, 0.99)
    assert slower is not None
    assert slower.ttft_tail_s <= state.ttft_tail_s


def test_the_words_have_the_figures_of_the_plan():
    plan = make_plan(question())
    told = explain(plan, (0.15, 0.6))
    assert plan.best is not None
    assert plan.best.name in told
    assert f"{plan.best.usd_per_hour:,.2f} USD an hour" in told
    assert "breaks even at" in told


def test_break_even_by_hand():
    plan = make_plan(question())
    each_usd = (2000 * 1.0 + 300 * 2.0) / 1e6
    assert plan.best is not None
    even = plan.break_even_per_s(plan.best, 1.0, 2.0)
    assert even == pytest.approx(plan.best.usd_per_hour / 3600 / each_usd)
    assert math.isinf(plan.break_even_per_s(plan.best, 0, 0))


@pytest.mark.parametrize("apart", [False, True])
def test_the_settings_can_be_served(tmp_path, apart):
    plan = make_plan(question(MOE))
    option = next(o for o in plan.options if (o.split is not None) == apart)
    text = settings_yaml(plan, option, "planned", str(tmp_path), {"dtype": "bfloat16"})
    file = tmp_path / "planned.yaml"
    file.write_text(text)
    model = load_settings("gpu", file).model("planned")
    assert model is not None
    assert model.parallel.workers == option.layout.devices
    assert sum(p.replicas for p in model.pools) == (
        option.devices / option.layout.devices if apart else 0
    )
    assert yaml.safe_load(text)["models"][0]["price"]["replica_usd_per_hour"] > 0


def test_what_the_autoscaler_assumes_follows_from_the_plan():
    made = question()
    option = next(o for o in make_plan(made).options if o.state is not None)
    capacity = assumed_capacity(made, option)
    assert 0.05 <= capacity.usable <= 1
    # At the highest rate within the limits, so much of the replica's time is used.
    rate = option.state.rate_per_s
    work = made.lengths.computed / capacity.prefill_tokens_per_s
    work += made.lengths.output / capacity.decode_tokens_per_s
    assert rate * work == pytest.approx(capacity.usable, rel=0.01) or capacity.usable == 1
    slower = replace(made, slo=replace(made.slo, tpot_s=made.slo.tpot_s / 2))
    assert assumed_capacity(slower, option).decode_tokens_per_s <= capacity.decode_tokens_per_s


def test_a_trace_gives_rates_lengths_and_what_repeats(tmp_path):
    rows = [
        {"timestamp": 0, "input_length": 1024, "output_length": 10, "hash_ids": [1, 2]},
        {"timestamp": 1000, "input_length": 1024, "output_length": 30, "hash_ids": [1, 3]},
        {"timestamp": 9000, "input_length": 512, "output_length": 20, "hash_ids": [1]},
    ]
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    traffic = read_traffic(file)
    assert traffic.output == 20
    assert traffic.mean_per_s == pytest.approx(3 / 9)
    assert traffic.cached_share == pytest.approx((512 + 512) / 2560)


def test_azures_table_is_a_trace(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:56.6805900,396,109\n"
    )
    traffic = read_traffic(file)
    assert (traffic.prompt, traffic.output) == (385, 76.5)
    assert traffic.mean_per_s == pytest.approx(0.2)


@pytest.mark.parametrize("text", ["", "{}\n{}\n", "not json\n", '{"timestamp": 1}\n'])
def test_what_is_no_trace_is_told(tmp_path, text):
    file = tmp_path / "t.jsonl"
    file.write_text(text)
    with pytest.raises(ConfigError, match="trace"):
        read_traffic(file)


def test_an_apis_price_is_known_or_given():
    assert api_prices("1,2.5") == (1.0, 2.5)
    assert all(price > 0 for price in api_prices("openai:gpt-4o-mini"))
    with pytest.raises(ConfigError, match="IN,OUT"):
        api_prices("nobody:nothing")


def test_the_command_prints_writes_and_draws(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B))
    out, picture = tmp_path / "s.yaml", tmp_path / "p.png"
    flags = ["--rate", "5", "--accelerator", "H100", "--settings", str(out)]
    result = CliRunner().invoke(
        app, ["plan", str(tmp_path), *flags, "--picture", str(picture), "--json"]
    )
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["options"][0]["name"] == "1 × H100"
    assert "replicas: 1" in out.read_text()
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_a_price_replaces_the_example(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_31_8B))
    flags = ["--rate", "1", "--accelerator", "H100", "--usd-per-hour", "1.25", "--json"]
    told = json.loads(CliRunner().invoke(app, ["plan", str(tmp_path), *flags]).stdout)
    assert told["options"][0]["usd_per_hour"] == 1.25
