"""``weir features`` as a person types it, on the embedded Redis and a small data set."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from deployments.redis_server import RedisServer
from weir.cli.exits import CommandError, ExitCode
from weir.errors import WeirError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from deployments.feature_commands.__main__ import app
    from features.repo import store_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PROFILE = {
    "tier": "platinum",
    "name": "Fresh Name",
    "country": "SE",
    "loyalty_points": 4321,
    "customer_since_days": 12,
}


class Features:
    """Runs commands; the error of the last one is kept."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self._options = folder, ["--data", str(folder / "data"), "--redis", url]
        self.error: BaseException | None = None

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        result = CliRunner().invoke(app, [*arguments, *self._options], input=stdin)
        self.error = result.exception
        known = isinstance(self.error, WeirError | SystemExit) or self.error is None
        assert known, repr(self.error)
        return result.stdout

    def inspect(self, entity: str, *more: str) -> dict[str, Any]:
        return dict(json.loads(self("inspect", entity, "--json", *more)))


@pytest.fixture(scope="module")
def features(
    redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Features]:
    """Applied and materialized, once for the module: Feast takes seconds."""
    url = redis_server.url.removesuffix("/0") + "/6"
    run = Features(tmp_path_factory.mktemp("features"), url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WEIR_HOME", str(run.folder / "home"))
        applied = run(
            "apply", "--customers", "200", "--as-of", "2026-03-01", "--tenants", "a=1,b=1"
        )
        assert "applied Entity customer" in applied
        assert "applied FeatureService support_desk" in applied
        said = run("materialize")
        assert "customer_profile: 200 rows" in said
        assert "customer_generated: 0 rows" in said
        yield run


def test_applying_again_keeps_the_data(features: Features) -> None:
    manifest = (features.folder / "data" / "manifest.json").read_text()
    assert "FeatureView customer_orders" in features("apply", "--customers", "99", "--seed", "1")
    assert (features.folder / "data" / "manifest.json").read_text() == manifest


def test_materializing_again_writes_only_what_came_since(features: Features) -> None:
    said = features("materialize", "--view", "customer_profile")
    assert said.startswith("customer_profile: 0 rows")
    again = features("materialize", "--view", "customer_orders", "--all")
    assert again.startswith("customer_orders: 200 rows")


def test_inspect_shows_values_age_and_long_tail(features: Features) -> None:
    held = features.inspect("a/10001")
    assert held["known"] is True
    assert held["long_tail"] is True
    profile = held["views"]["customer_profile"]
    assert profile["event_time"] == "2026-03-01T00:00:00+00:00"
    assert profile["values"]["tier"] in ("bronze", "silver", "gold", "platinum")
    assert json.loads(held["views"]["customer_orders"]["values"]["orders"])[0]["id"].isdigit()
    assert held["views"]["customer_generated"]["state"] == "missing"
    shown = features("inspect", "10001", "--tenant", "a")
    assert "a/10001: long-tail" in shown
    assert "loyalty_points" in shown


@pytest.mark.parametrize("entity", ["a/99999", "c/10001", "a/a%2F10001"])
def test_inspect_tells_missing_from_empty(features: Features, entity: str) -> None:
    held = features.inspect(entity)
    assert held["known"] is False
    assert isinstance(features.error, SystemExit)
    assert features.error.code == ExitCode.FAILURE


def test_another_tenants_entity_is_another_entity(features: Features) -> None:
    names = [
        features.inspect("10001", "--tenant", tenant)["views"]["customer_profile"]["values"]
        for tenant in ("a", "b")
    ]
    assert names[0] != names[1]


def test_an_id_alone_is_of_the_only_tenant(features: Features) -> None:
    """On the laptop profile the key that ``weir up`` prints is the tenant demo's."""
    assert features.inspect("10001")["entity"] == "demo/10001"


def test_an_id_alone_is_nobodys_where_there_are_several_tenants(features: Features) -> None:
    file = features.folder / "home" / "settings.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("tenants: [{id: a}, {id: b}]\n")
    try:
        features("inspect", "10001")
    finally:
        file.unlink()
    assert isinstance(features.error, CommandError)
    assert features.error.exit_code == ExitCode.USAGE
    assert "the tenants a, b" in str(features.error)
    assert "--tenant" in str(features.error.hint)


def test_pushed_events_are_online_at_once_and_in_the_history(features: Features) -> None:
    at = "2026-03-02T10:00:00+00:00"
    event = PROFILE | {"tenant_id": "b", "entity_id": "10002", "event_timestamp": at}
    said = features("push", "customer_profile", "-", stdin=json.dumps(event) + "\n")
    assert said == "customer_profile: pushed 1 rows\n"
    held = features.inspect("b/10002")["views"]["customer_profile"]
    assert held["values"] == PROFILE
    assert held["event_time"] == at
    labels, out = features.folder / "labels.csv", features.folder / "training.parquet"
    labels.write_text(
        "entity,event_timestamp,label\n"
        "b/10002,2099-01-01T00:00:00Z,too old\n"
        "b/10002,2026-03-02T09:59:59Z,before\n"
    )
    features("history", "--entities", str(labels), "--out", str(out))
    joined = pd.read_parquet(out)
    assert joined["label"].tolist() == ["too old", "before"]
    assert pd.isna(joined["customer_profile__name"][0]), "older than its time to live"
    assert joined["customer_profile__name"][1] != PROFILE["name"], "leaked from the future"


def test_an_entity_without_any_row_has_nulls_in_the_history(features: Features) -> None:
    """Also where pushes have made several files of a view's history."""
    event = PROFILE | {"entity": "b/10004", "event_timestamp": "2026-03-02T10:00:00+00:00"}
    features("push", "customer_profile", "-", stdin=json.dumps(event) + "\n")
    labels, out = features.folder / "nobody.csv", features.folder / "nobody.parquet"
    labels.write_text("entity,event_timestamp\nb/99999,2026-11-02T00:00:00Z\n")
    features("history", "--entities", str(labels), "--out", str(out))
    joined = pd.read_parquet(out)
    assert joined["entity"].tolist() == ["b/99999"]
    assert joined.drop(columns=["entity", "event_timestamp"]).isna().all(axis=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tier": None, "colour": "red"}, "unknown \\['colour'\\]"),
        ({"event_timestamp": "2026-03-02T10:00:00"}, "no time zone"),
        ({"event_timestamp": "today"}, "event_timestamp"),
        ({"loyalty_points": "many"}, "does not fit customer_profile"),
    ],
)
def test_bad_events_are_refused_and_nothing_is_pushed(
    features: Features, change: dict[str, Any], message: str
) -> None:
    good = PROFILE | {"entity": "b/10003", "event_timestamp": "2026-03-02T10:00:00Z"}
    lines = "\n".join(json.dumps(each) for each in (good, good | change))
    before = values(features.inspect("b/10003"))
    features("push", "customer_profile", "-", stdin=lines)
    with pytest.raises(WeirError, match=message):
        raise features.error or AssertionError("it was pushed")
    assert values(features.inspect("b/10003")) == before


def values(held: dict[str, Any]) -> dict[str, Any]:
    return {name: view["values"] for name, view in held["views"].items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("push", "customer_nothing", "-"), "no view 'customer_nothing'"),
        (("push", "customer_profile", "-"), "no events"),
        (("materialize", "--view", "x"), "no view 'x'"),
        (("apply", "--new-data", "--as-of", "soon"), "--as-of"),
        (("apply", "--new-data", "--tenants", "a=b"), "--tenants"),
        (("history", "--entities", "x", "--out", "y", "--service", "z"), "--service: no 'z'"),
    ],
)
def test_wrong_usage_names_what_is_wrong(
    features: Features, arguments: tuple[str, ...], message: str
) -> None:
    features(*arguments, stdin="")
    assert isinstance(features.error, CommandError)
    assert message in features.error.message
    assert features.error.exit_code == ExitCode.USAGE


def test_without_data_or_redis_commands_say_so(features: Features, tmp_path: Path) -> None:
    nowhere = Features(tmp_path, "redis://127.0.0.1:1/0")
    nowhere("materialize")
    assert "weir features apply" in str(nowhere.error)
    nowhere("inspect", "a/1")
    assert "no Redis answers at 127.0.0.1:1" in str(nowhere.error)


@pytest.mark.parametrize("name", [(), ("apply",), ("generate",), ("history",)])
def test_help_has_an_example(name: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*name, "--help"])
    assert result.exit_code == 0
    assert "weir features" in result.stdout
    assert "Example" in result.stdout or "Start here" in result.stdout


@pytest.mark.parametrize(
    ("url", "connection"),
    [
        ("redis://localhost", "localhost:6379,db=0"),
        ("redis://h:1/2", "h:1,db=2"),
        ("rediss://me:p%40ss@h:1/0", 'h:1,db=0,username="me",password="p@ss",ssl=true'),
    ],
)
def test_redis_urls_become_feasts_connection_strings(
    tmp_path: Path, url: str, connection: str
) -> None:
    assert store_config(url, tmp_path).online_store.connection_string == connection


def test_other_urls_are_refused_without_their_password(tmp_path: Path) -> None:
    with pytest.raises(WeirError) as refused:
        store_config("http://me:secret@h/0", tmp_path)
    assert "secret" not in str(refused.value)
