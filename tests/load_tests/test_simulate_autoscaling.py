"""``weir autoscale simulate``: days through policies of files, a picture, and clear errors."""

import json

import pytest

from load_tests import simulate_autoscaling
from tests.load_tests.test_bench_autoscale import folder, table  # noqa: F401 - fixtures
from weir.autoscaling.policy_file import policy_schema
from weir.autoscaling.registry import policy_names


@pytest.fixture
def asked(folder, tmp_path):  # noqa: F811
    (tmp_path / "ours.yaml").write_text("policy: weir\nparams: {headroom: 0.4}\n")
    (tmp_path / "theirs.yaml").write_text("policy: kpa\nparams: {target: 20}\n")
    trace = folder / "servegen_language_m-large.csv.gz"
    policies = [f"--policy={tmp_path / name}" for name in ("ours.yaml", "theirs.yaml")]
    return ["--trace", str(trace), *policies, "--days", "0.1"]


def test_each_policy_has_its_row_and_a_line_in_the_picture(asked, tmp_path, capsys):
    picture = tmp_path / "days.svg"
    assert simulate_autoscaling.main([*asked, "--picture", str(picture), "--json"]) == 0
    rows = {row["system"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == {"ours", "theirs"}
    for row in rows.values():
        assert row["usd"] > 0
        assert 0 <= row["met_share"] <= 1
        assert row["replicas_most"] >= row["replicas_mean"] > 0
    assert picture.read_text("utf-8").startswith("<?xml")


def test_hours_may_be_cheaper(asked, capsys):
    def usd(*more):
        assert simulate_autoscaling.main([*asked, *more, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["rows"]
        return {row["system"]: row["usd"] for row in rows}

    plain = usd()
    assert usd("--cheap-hours", "12", "20", "0.5") == plain  # the trace ends before
    some = usd("--cheap-hours", "23", "1", "0.5")
    assert all(0.4 * plain[name] < some[name] < 0.9 * plain[name] for name in plain)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("policy: weir\nparams: {headrom: 1}\n", "headrom"),
        ("policy: wier\n", "wier"),
        ("polici: weir\n", "polici"),
        ("policy: weir\nparams: {headroom: -1}\n", "headroom"),
    ],
)
def test_a_wrong_policy_file_is_refused_with_the_key_by_name(text, named, asked, tmp_path, capsys):
    (tmp_path / "ours.yaml").write_text(text)
    assert simulate_autoscaling.main(asked) == 2
    assert named in capsys.readouterr().err


def test_days_without_requests_are_refused(asked, capsys):
    assert simulate_autoscaling.main([*asked, "--from-day", "30"]) == 2
    assert "nothing arrives" in capsys.readouterr().err


def test_the_schema_has_every_policy():
    alternatives = policy_schema()["oneOf"]
    assert {one["properties"]["policy"]["const"] for one in alternatives} == set(policy_names())
    weir = next(one for one in alternatives if one["properties"]["policy"]["const"] == "weir")
    assert "headroom" in weir["properties"]["params"]["properties"]
