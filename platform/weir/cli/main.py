"""The ``weir`` command's face: names, flags, help. What a command does is in its own module."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.admin import admin_app
from weir.cli.autoscale import autoscale_app
from weir.cli.batches import batches_app
from weir.cli.directory import DatabaseOption, JsonOption
from weir.cli.keys import keys_app
from weir.cli.ledger import CsvOption, SinceOption, TenantOption, UntilOption, cost_app
from weir.cli.models import models_app
from weir.cli.plan import plan
from weir.cli.pools import pools_app
from weir.cli.rollout import rollout_app
from weir.cli.slo import slo_app
from weir.cli.tenants import tenants_app
from weir.cli.trace import trace

if TYPE_CHECKING:
    from rich.console import Console

    from weir.cli.state import State

_PASS_ON = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
}
# The tool prints its own help: all of its flags.
_TOOL: dict[str, Any] = {**_PASS_ON, "help_option_names": []}

app = typer.Typer(
    name="weir",
    help="Multi-tenant LLM serving on Ray Serve and vLLM: one OpenAI-compatible URL.",
    epilog="Start here: [bold]weir up[/]. Exit codes: 0 done, 1 failed, 2 wrong usage or settings, "
    "3 not running, 4 something is in the way.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(
    help="Check and show settings.",
    epilog="Example: [bold]weir config check my.yaml[/]",
    no_args_is_help=True,
)
app.add_typer(config_app, name="config")
app.add_typer(models_app, name="models")
app.add_typer(pools_app, name="pools")
app.add_typer(rollout_app, name="rollout")
app.command(epilog="Example: [bold]weir trace 3f6c0a9e[/]")(trace)
app.add_typer(admin_app, name="admin")
app.add_typer(batches_app, name="batches")
app.command(
    epilog="Example: [bold]weir plan config.json --accelerator H100 --accelerator L40S --rate 20[/]"
)(plan)
app.add_typer(tenants_app, name="tenants")
app.add_typer(keys_app, name="keys")
app.add_typer(cost_app, name="cost")
app.add_typer(slo_app, name="slo")
app.add_typer(autoscale_app, name="autoscale")

ProfileOption = Annotated[
    str, typer.Option("--profile", help="Settings that ship with weir: laptop or gpu.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="WEIR_CONFIG", help="YAML file over the profile."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="Serve only this model: a directory or a Hugging Face id."),
]
PortOption = Annotated[
    int | None, typer.Option("--port", min=1, max=65535, help="Port of the URL (server.port).")
]
RedisPortOption = Annotated[
    int | None,
    typer.Option("--redis-port", min=1, max=65535, help="Port of the embedded Redis (redis.port)."),
]


@app.command(epilog="Example: [bold]weir up --port 9000 --redis-port 9001[/]")
def up(
    profile: ProfileOption = "laptop",
    config: ConfigOption = None,
    model: ModelOption = None,
    port: PortOption = None,
    redis_port: RedisPortOption = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to wait until the platform is ready.")
    ] = 600.0,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return at once; 'weir status' tells when it is up.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print URL, key and models as one JSON object.")
    ] = False,
) -> None:
    """Start the platform, print its URL, a key and a line to try; leave it running."""
    from weir.cli.effective import SettingsFlags
    from weir.cli.up import UpOptions
    from weir.cli.up import up as start

    flags = SettingsFlags(profile, config, model, port, redis_port)
    options = UpOptions(flags, timeout, not no_wait, as_json)
    start(options, _state_folder(), _stderr())


@app.command(epilog="Example: [bold]weir down[/]")
def down(
    now: Annotated[bool, typer.Option("--now", help="Do not wait for streams in flight.")] = False,
) -> None:
    """Stop the platform. Streams in flight finish first; Ctrl-C hurries it."""
    from weir.cli.down import down as stop

    stop(_state_folder(), _stderr(), now)


@app.command(epilog="Example: [bold]weir apply --scale weir-teacher=3[/]")
def apply(
    config: ConfigOption = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(help="MODEL=REPLICAS or MODEL:POOL=REPLICAS; may be given several times."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for it.")] = 300.0,
) -> None:
    """Change a running platform: more or fewer replicas, other settings; no request is lost."""
    from weir.cli.apply import apply as change
    from weir.cli.apply import parse_scale

    change(_state_folder(), config, parse_scale(scale or []), timeout, _stderr())


@app.command(epilog="Example: [bold]weir status --json[/]")
def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show deployments, replicas, state, KV use, running and waiting requests."""
    from weir.cli.status import status as show

    show(_state_folder(), as_json)


@app.command(epilog="Example: [bold]weir usage --by tenant,model --since 7d[/]")
def usage(
    by: Annotated[
        str,
        typer.Option(
            help="By what to sum, with commas: tenant, model, class, key, label, day, hour, "
            "endpoint, asked, pool, spill."
        ),
    ] = "tenant",
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Sum what was used and what it was billed at."""
    from weir.cli.ledger import Form, show_usage

    show_usage(by, since, until, tenant, database, Form(as_json, as_csv))


@app.command(epilog="Example: [bold]weir profile a1b2c3 --seconds 10[/]")
def profile(
    replica: Annotated[str, typer.Argument(help="Its id in 'weir status', or how that begins.")],
    seconds: Annotated[float, typer.Option(min=1, max=120, help="How long to look.")] = 5.0,
    torch: Annotated[
        bool, typer.Option("--torch", help="A trace by torch's profiler, not a flame graph.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Profile a live replica: a flame graph or a trace, and its three largest costs."""
    from weir.cli.profile import ProfileOptions
    from weir.cli.profile import profile as take

    take(ProfileOptions(replica, seconds, torch, out), _state_folder())


@app.command(epilog="Example: [bold]weir chat --message 'Where is my order?'[/]")
def chat(
    model: Annotated[
        str | None, typer.Option(help="Which model; the first one if left out.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(help="System message. Left out, weir's own models speak for a sample store."),
    ] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", help="Ask this, print the answer, end.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Another gateway; its key in WEIR_API_KEY.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 256,
) -> None:
    """Talk to a model; the answer streams into the terminal."""
    from weir.cli.chat import ChatOptions
    from weir.cli.chat import chat as talk

    talk(ChatOptions(model, system, message, url, max_tokens), _state_folder())


@config_app.command("check", epilog="Example: [bold]weir config check my.yaml[/]")
def config_check(
    file: Annotated[Path, typer.Argument(help="The YAML file, as given to 'weir up --config'.")],
    profile: ProfileOption = "laptop",
    static: Annotated[
        bool,
        typer.Option(
            "--static", help="Leave out what depends on this machine: models' files, secrets."
        ),
    ] = False,
) -> None:
    """Report everything that is wrong with a settings file, each with its path."""
    from weir.cli.config import check

    models = ", ".join(check(file, profile, static=static))
    typer.echo(f"{file}: good over profile {profile} (models: {models})")


@config_app.command("schema", epilog="Example: [bold]weir config schema > weir.schema.json[/]")
def config_schema() -> None:
    """Print the JSON schema of settings files, for editors and charts."""
    from weir.cli.config import schema

    typer.echo(schema(), nl=False)


@config_app.command("show", epilog="Example: [bold]weir config show --profile gpu[/]")
def config_show(
    profile: ProfileOption = "laptop",
    config: ConfigOption = None,
    model: ModelOption = None,
    port: PortOption = None,
    redis_port: RedisPortOption = None,
    running: Annotated[
        bool, typer.Option("--running", help="Those of the last 'weir up' instead.")
    ] = False,
) -> None:
    """Print the effective settings as YAML, secrets masked."""
    from weir.cli.effective import SettingsFlags, effective_settings, to_masked_yaml
    from weir.settings import load_settings

    if running:
        settings = load_settings("laptop", _state_folder().settings_file)
    else:
        flags = SettingsFlags(profile, config, model, port, redis_port)
        settings = effective_settings(flags)
    typer.echo(to_masked_yaml(settings, os.environ), nl=False)


@app.command(context_settings=_PASS_ON, epilog="Example: [bold]weir bench dataplane --json[/]")
def bench(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Which one; left out: list them.")] = None,
    run_all: Annotated[bool, typer.Option("--all", help="Run all of them in turn.")] = False,
) -> None:
    """Run a benchmark of the checkout. What follows the name goes to the benchmark."""
    from weir.cli.checkout import bench_module, benches, checkout_root, run_module

    root = checkout_root()
    known = benches(root)
    if name is None and not run_all:
        for known_name, about in known.items():
            typer.echo(f"{known_name:<16} {about}")
        if not known:
            typer.echo("This checkout has no benchmarks yet.")
        return
    names = list(known) if run_all else [str(name)]
    arguments = [*([name] if run_all and name else []), *context.args]
    codes = [run_module(root, bench_module(root, each), arguments) for each in names]
    raise typer.Exit(max(codes, default=0))


@app.command(context_settings=_PASS_ON, epilog="Example: [bold]weir simulate --help[/]")
def simulate(context: typer.Context) -> None:
    """Run the simulator of the checkout with the arguments given."""
    from weir.cli.checkout import checkout_root, require_module, run_module

    root = checkout_root()
    raise typer.Exit(run_module(root, require_module(root, "load_tests.simulate"), context.args))


@app.command(context_settings=_PASS_ON, epilog="Example: [bold]weir train teacher --help[/]")
def train(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What to train: teacher, adapter.")],
) -> None:
    """Train a model that ships with weir. What follows the name goes to the training script."""
    from weir.cli.checkout import checkout_root, run_module, trainer_module

    root = checkout_root()
    raise typer.Exit(run_module(root, trainer_module(root, name), context.args))


@app.command(context_settings=_TOOL)
def distill(context: typer.Context) -> None:
    """Distil a small model from a large one of the same tokenizer."""
    from weir.cli.distill import distill as run

    raise typer.Exit(run(context.args))


@app.command("eval", context_settings=_TOOL)
def evaluate(context: typer.Context) -> None:
    """Evaluate models next to their teacher; exit code 1 for one that is below the gate."""
    from weir.cli.eval import evaluate as run

    raise typer.Exit(run(context.args))


@app.command(context_settings=_TOOL)
def quantize(context: typer.Context) -> None:
    """Write a model's weights in 8 or 4 bits, as vLLM loads them."""
    from weir.cli.quantize import quantize as run

    raise typer.Exit(run(context.args))


@app.command(context_settings=_TOOL)
def features(context: typer.Context) -> None:
    """Features for prompts: apply, materialize, push, inspect, generate, history."""
    from weir.cli.features import features as hand_on

    raise typer.Exit(hand_on(context.args))


@app.command(context_settings=_TOOL)
def levers(context: typer.Context) -> None:
    """Try each lever of the engine: works or not, equal answers or not, what it gains."""
    from weir.cli.levers import levers as hand_on

    raise typer.Exit(hand_on(context.args))


@app.command(epilog="Example: [bold]weir version[/]")
def version() -> None:
    """Print weir's version."""
    from weir import __version__

    typer.echo(f"weir {__version__}")


def _state_folder() -> State:
    from weir.cli.state import State

    return State.from_environment()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def main() -> None:
    """Run the command line and exit with a code of :class:`weir.cli.exits.ExitCode`."""
    run_app(app)


def run_app(command: typer.Typer) -> None:
    """Run ``command``; errors are told in one line and exit with their code."""
    from weir.cli.exits import CommandError, ExitCode
    from weir.errors import ConfigError

    try:
        command()
    except CommandError as error:
        _complain(error.message, error.hint)
        sys.exit(error.exit_code)
    except ConfigError as error:
        _complain(error.message)
        sys.exit(ExitCode.USAGE)
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`weir status | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILURE)
    except OSError as error:
        _complain(str(error))
        sys.exit(ExitCode.FAILURE)


def _complain(message: str, hint: str | None = None) -> None:
    typer.secho(f"weir: {message}", fg=typer.colors.RED, err=True)
    if hint:
        typer.echo(f"      {hint}", err=True)


if __name__ == "__main__":
    main()
