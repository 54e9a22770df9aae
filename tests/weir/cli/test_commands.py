"""Names, flags, help, exit codes; and what the command costs to start."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
import yaml
from typer.testing import CliRunner

from weir import __version__
from weir.cli import checkout
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import app
from weir.cli.ports import require_free, require_free_ports
from weir.settings import load_settings

if TYPE_CHECKING:
    from conftest import Weir

RUNNER = CliRunner()
COMMANDS = [
    ["up"],
    ["down"],
    ["apply"],
    ["status"],
    ["chat"],
    ["config", "check"],
    ["config", "show"],
    ["config", "schema"],
    ["models", "list"],
    ["models", "show"],
    ["models", "add"],
    ["models", "promote"],
    ["models", "rollback"],
    ["models", "card"],
    ["plan"],
    ["usage"],
    ["autoscale", "status"],
    ["autoscale", "explain"],
    ["autoscale", "diff"],
    ["rollout", "start"],
    ["rollout", "status"],
    ["rollout", "promote"],
    ["rollout", "abort"],
    ["rollout", "hold"],
    ["rollout", "close"],
    ["slo", "rules"],
    ["trace"],
    ["pools", "set"],
    ["admin", "key"],
    ["admin", "openapi"],
    ["batches", "list"],
    ["batches", "show"],
    ["batches", "cancel"],
    ["batches", "submit"],
    ["tenants", "list"],
    ["tenants", "show"],
    ["tenants", "create"],
    ["tenants", "update"],
    ["tenants", "delete"],
    ["keys", "list"],
    ["keys", "create"],
    ["keys", "rotate"],
    ["keys", "revoke"],
    ["cost", "report"],
    ["profile"],
    ["bench"],
    ["simulate"],
    ["train"],
    ["version"],
]
# Programs of their own, with a help of their own.
HANDED_ON = {"distill", "eval", "features", "levers", "quantize"}


def test_the_list_of_commands_is_complete() -> None:
    group = typer.main.get_command(app)
    listed = {command[0] for command in COMMANDS} | HANDED_ON
    assert listed == set(group.commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", [[], ["config"], *COMMANDS], ids=" ".join)
def test_every_help_has_an_example(command: list[str]) -> None:
    result = RUNNER.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert ("weir " + " ".join(command)).strip() in result.output
    assert "Example" in result.output or "Start here" in result.output


def test_version() -> None:
    assert RUNNER.invoke(app, ["version"]).output == f"weir {__version__}\n"


def test_config_check_accepts_and_names_the_models(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("models: [{name: mine, source: org/mine}]")
    result = RUNNER.invoke(app, ["config", "check", str(file)])
    assert result.exit_code == 0
    assert "mine" in result.output


def test_config_check_reports_everything_and_exits_with_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("server: {port: x}\nmodel: []\nmodels: [{name: m}]\n")
    command = [sys.executable, "-m", "weir.cli.main", "config", "check", str(file)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == ExitCode.USAGE
    for path in ("server.port:", "model: unknown key", "models[0].source: missing"):
        assert path in run.stderr
    assert "Traceback" not in run.stderr


def test_config_show_is_the_effective_tree(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("redis: {mode: external, url: 'redis://:hidden@h:1/0'}")
    result = RUNNER.invoke(app, ["config", "show", "--config", str(file), "--port", "7007"])
    assert result.exit_code == 0
    assert "hidden" not in result.output
    tree = yaml.safe_load(result.output)
    assert tree["server"]["port"] == 7007
    assert tree["models"][0]["name"] == load_settings("laptop").models[0].name


def test_config_comes_from_the_environment_too(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {port: 7008}")
    result = RUNNER.invoke(app, ["config", "show"], env={"WEIR_CONFIG": str(file)})
    assert yaml.safe_load(result.output)["server"]["port"] == 7008


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--port", "0"],
        ["up", "--profile", "nope"],
        ["up", "--model", "./nowhere"],
        ["dance"],
        ["chat", "--max-tokens", "0"],
        ["bench", "no-such-bench"],
        ["train", "nobody"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_no_traceback(weir: Weir, arguments: list[str]) -> None:
    run = weir(*arguments)
    assert run.returncode == ExitCode.USAGE
    assert run.stderr
    assert "Traceback" not in run.stderr
    assert weir.state.supervisor() is None


def test_a_state_folder_that_cannot_be_made_is_no_traceback(weir: Weir) -> None:
    run = weir.up(WEIR_HOME=str(weir.config / "below-a-file"))
    assert run.returncode == ExitCode.FAILURE
    assert "below-a-file" in run.stderr
    assert "Traceback" not in run.stderr


def test_starting_the_command_loads_nothing_heavy(package_env: dict[str, str]) -> None:
    code = """
import contextlib, io, json, sys
import weir.cli.main as cli
after_import = sorted({name.partition(".")[0] for name in sys.modules})
from weir.cli import chat, checkout, down, status, up
after_commands = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps([after_import, after_commands]))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], env=package_env, capture_output=True, text=True, check=True
    )
    after_import, after_commands = (set(names) for names in json.loads(run.stdout))
    assert not after_import & {"pydantic", "yaml", "httpx", "psutil"}
    heavy = {"ray", "vllm", "torch", "transformers", "feast", "numpy", "openai", "deployments"}
    assert not after_commands & heavy


def test_ports_say_whose_address_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=rf"port {port} .* \(server.port\)"):
            require_free("127.0.0.1", port, "server.port", "hint")
    require_free("127.0.0.1", port, "server.port", "hint")
    with pytest.raises(CommandError, match=r"cannot listen on 203\.0\.113\.1"):
        require_free("203.0.113.1", port, "server.port", "hint")


def test_a_taken_port_names_its_setting_and_the_flag() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        tree = {"server": {"port": _free_port()}, "redis": {"port": port}}
        with pytest.raises(CommandError, match=r"is taken.*\(redis\.port\)") as caught:
            require_free_ports(load_settings("laptop", overlay=tree))
        assert "--redis-port" in str(caught.value.hint)


def test_a_port_that_is_asked_for_twice_is_told() -> None:
    port = _free_port()
    tree = {"server": {"port": port}, "redis": {"port": port}}
    with pytest.raises(CommandError, match=r"asked for twice \(server\.port, redis\.port\)"):
        require_free_ports(load_settings("laptop", overlay=tree))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def small_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    room = tmp_path / "load_tests"
    room.mkdir()
    (room / "__init__.py").touch()
    (tmp_path / "pyproject.toml").touch()
    body = "import json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(int(sys.argv[-1]))\n"
    (room / "bench_one.py").write_text(f'"""The first one.\n\nMore."""\n{body}')
    (room / "bench_two.py").write_text(body)
    (room / "simulate.py").write_text(body)
    monkeypatch.setattr(checkout, "checkout_root", lambda: tmp_path)
    return tmp_path


@pytest.mark.usefixtures("small_checkout")
def test_bench_lists_what_there_is() -> None:
    result = RUNNER.invoke(app, ["bench"])
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.output.splitlines()] == [
        ["one", "The first one."],
        ["two"],
    ]


@pytest.mark.usefixtures("small_checkout")
def test_bench_passes_arguments_on_and_returns_the_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert RUNNER.invoke(app, ["bench", "one", "--json", "--help", "0"]).exit_code == 0
    assert json.loads(capfd.readouterr().out) == ["--json", "--help", "0"]
    assert RUNNER.invoke(app, ["bench", "two", "7"]).exit_code == 7
    assert RUNNER.invoke(app, ["simulate", "--seed", "5"]).exit_code == 5


@pytest.mark.usefixtures("small_checkout")
def test_bench_all_runs_each(capfd: pytest.CaptureFixture[str]) -> None:
    assert RUNNER.invoke(app, ["bench", "--all", "--json", "3"]).exit_code == 3
    assert capfd.readouterr().out.splitlines() == ['["--json", "3"]'] * 2


def test_without_sources_there_is_nothing_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "site-packages" / "weir" / "__init__.py"
    monkeypatch.setattr(checkout.weir, "__file__", str(fake))
    with pytest.raises(CommandError, match="without them") as caught:
        checkout.checkout_root()
    assert caught.value.exit_code == ExitCode.USAGE
