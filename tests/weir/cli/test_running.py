"""`weir status`, `chat` and `apply` around one running (fake) platform."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import yaml

from weir.cli.apply import parse_scale
from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from conftest import Weir


def test_status_shows_replicas_and_their_load(running: Weir) -> None:
    run = running("status")
    assert run.returncode == 0
    row = next(line for line in run.stdout.splitlines() if "r1" in line)
    assert row.split() == ["r1", "running", "42%", "3", "7", "512", "31%", "64%"]
    assert "1 of 2" in run.stdout
    assert "up 1 min 15 s" in run.stdout


def test_status_as_json_is_the_gateways_own(running: Weir) -> None:
    held = json.loads(running("status", "--json").stdout)
    assert held["state"] == "running"
    assert held["deployments"][1]["replicas"][0]["kv_use"] == 0.42


def test_chat_streams_one_answer(running: Weir) -> None:
    run = running("chat", "--message", "hello", "--system", "be brief")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "system,user: HELLO\n"


def test_chat_keeps_the_conversation_until_reset(running: Weir) -> None:
    run = running("chat", "--system", "", stdin="one\ntwo\n/reset\nthree\n/exit\nfour\n")
    assert run.returncode == 0, run.stderr
    answers = ["user: ONE", "user,assistant,user: TWO", "user: THREE"]
    assert run.stdout.splitlines() == answers


def test_weirs_own_models_speak_for_a_store(running: Weir) -> None:
    assert running("chat", "-m", "hello").stdout == "system,user: HELLO\n"


@pytest.mark.parametrize(
    ("arguments", "env", "message"),
    [
        (("--model", "nope"), {}, "404: no model nope"),
        ((), {"WEIR_API_KEY": "wrong"}, "401: bad key"),
    ],
)
def test_chat_shows_the_gateways_error(
    running: Weir, arguments: tuple[str, ...], env: dict[str, str], message: str
) -> None:
    run = running("chat", "-m", "hello", *arguments, **env)
    assert run.returncode == 1
    assert message in run.stderr


def replicas(running: Weir) -> int:
    return int(yaml.safe_load(running.state.settings_file.read_text())["models"][0]["replicas"])


def test_apply_scales_a_model(running: Weir) -> None:
    run = running("apply", "--scale", "fake-model=3")
    assert run.returncode == 0, run.stderr
    assert "3 replicas" in run.stderr
    assert replicas(running) == 3


def test_what_the_platform_refuses_leaves_the_settings_as_they_were(running: Weir) -> None:
    before = running.state.settings_file.read_text()
    run = running("apply", "--scale", "fake-model=9")
    assert run.returncode == ExitCode.FAILURE
    assert "no room for 9" in run.stderr
    assert running.state.settings_file.read_text() == before


@pytest.mark.parametrize("scale", ["nobody=2", "fake-model", "fake-model=-1", "=2"])
def test_apply_refuses_what_makes_no_sense(running: Weir, scale: str) -> None:
    before = running.state.settings_file.read_text()
    run = running("apply", "--scale", scale)
    assert run.returncode == ExitCode.USAGE
    assert "--scale" in run.stderr
    assert running.state.settings_file.read_text() == before


def test_apply_needs_a_platform(weir: Weir) -> None:
    assert weir("apply", "--scale", "fake-model=1").returncode == ExitCode.NOT_RUNNING


def test_a_model_name_may_hold_an_equals_sign() -> None:
    assert parse_scale(["a=b=2", "c=0"]) == {"a=b": 2, "c": 0}
    with pytest.raises(CommandError):
        parse_scale(["c"])


def test_profiling_names_the_replicas_that_there_are(running: Weir) -> None:
    run = running("profile", "r9")
    assert run.returncode == 2
    assert "there is no replica r9" in run.stderr
    assert "there are: g1, r1" in run.stderr
