"""``weir autoscale``: what the autoscaler decided and why, and what another policy would have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.directory import DatabaseOption, JsonOption, open_store, print_json, print_table, told
from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from weir.autoscaling.keeping import Kept
    from weir.autoscaling.replay import Comparison, Step

autoscale_app = typer.Typer(
    help="How many replicas there are, and why.",
    epilog="Example: [bold]weir autoscale explain --at 2026-11-28T10:15[/]",
    no_args_is_help=True,
)

ModelOption = Annotated[str | None, typer.Option("--model", help="Of this model only.")]
_MOST_STEPS = 200_000
_SHOWN_STEPS = 40


@autoscale_app.command("status", epilog="Example: [bold]weir autoscale status[/]")
def status_command(
    model: ModelOption = None, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """Print the last decision for each pool: replicas, what was learned, cost."""
    found = _last(model, None, database)
    if as_json:
        print_json([_plain(kept) for kept in found])
        return
    heads = (
        "POOL",
        "TARGET",
        "READY",
        "STARTING",
        "OF",
        "EACH TOKENS/S",
        "START",
        "USD/HOUR",
        "AT",
    )
    print_table(heads, [row for kept in found for row in _pools(kept)], _NOTHING)


@autoscale_app.command("explain", epilog="Example: [bold]weir autoscale explain --at 15m[/]")
def explain_command(
    at: Annotated[
        str | None,
        typer.Option(help="The decision in force then: 2026-11-28T10:15, or 15m or 2h ago. UTC."),
    ] = None,
    model: ModelOption = None,
    changes: Annotated[
        int, typer.Option(min=0, max=1000, help="So many of the last changes instead of one.")
    ] = 0,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what was seen, what was decided and why, and what else was weighed."""
    from weir.autoscaling.explaining import explained

    found = _changes(model, at, changes, database) if changes else _last(model, at, database)
    if as_json:
        print_json([_plain(kept) for kept in found])
    elif not found:
        typer.echo(_NOTHING)
    else:
        typer.echo("\n\n".join(explained(kept) for kept in found))


@autoscale_app.command("diff", epilog="Example: [bold]weir autoscale diff policy.yaml[/]")
def diff_command(
    policy: Annotated[
        Path, typer.Argument(dir_okay=False, exists=True, help="YAML with policy and params.")
    ],
    since: Annotated[str, typer.Option(help="From then on: 1d, 12h, or a time. UTC.")] = "1d",
    until: Annotated[str | None, typer.Option(help="Up to then; left out: until now.")] = None,
    model: ModelOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what another policy would have decided on the demand of the last day."""
    from weir.autoscaling.policy_file import read_policy
    from weir.autoscaling.replay import compared, replay

    name, other = read_policy(policy)
    until_s = time.time() if until is None else _moment_s(until, "--until")
    kept = _between(_moment_s(since, "--since"), until_s, model, database)
    steps = replay(other, kept)
    found = compared(steps)
    if as_json:
        print_json(_as_data(name, found, steps))
        return
    _print_diff(name, found, steps)


@autoscale_app.command(
    "simulate",
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],
    },
    epilog="Example: [bold]weir autoscale simulate --trace FILE --policy a.yaml --policy b.yaml[/]",
)
def simulate_command(context: typer.Context) -> None:
    """Replay days of a trace with several policies, in the checkout, and draw them (--picture)."""
    from weir.cli.checkout import checkout_root, require_module, run_module

    root = checkout_root()
    module = require_module(root, "load_tests.simulate_autoscaling")
    raise typer.Exit(run_module(root, module, context.args))


@autoscale_app.command("schema", epilog="Example: [bold]weir autoscale schema > policy.json[/]")
def schema_command() -> None:
    """Print the JSON schema of a policy file: every policy with its parameters and defaults."""
    from weir.autoscaling.policy_file import policy_schema

    print_json(policy_schema())


_NOTHING = "The autoscaler has decided nothing yet: does a model have an autoscaling section?"


def _last(model: str | None, at: str | None, database: str | None) -> list[Kept]:
    from weir.autoscaling.keeping import find, of_each_model
    from weir.database import reading

    before_s = time.time() + 60.0 if at is None else _moment_s(at, "--at")
    with told(), reading(open_store(database).engine) as connection:
        if model is not None:
            return find(connection, model, before_s=before_s, most=1)
        return of_each_model(connection, before_s)


def _changes(model: str | None, at: str | None, most: int, database: str | None) -> list[Kept]:
    from weir.autoscaling.keeping import find
    from weir.database import reading

    before_s = None if at is None else _moment_s(at, "--at")
    with told(), reading(open_store(database).engine) as connection:
        return find(connection, model, before_s=before_s, changed=True, most=most)[::-1]


def _between(since_s: float, until_s: float, model: str | None, database: str | None) -> list[Kept]:
    from itertools import islice

    from weir.autoscaling.keeping import in_order
    from weir.database import reading

    with told(), reading(open_store(database).engine) as connection:
        rows = islice(in_order(connection, since_s, until_s), _MOST_STEPS)
        return [row for row in rows if model in (None, row.model)]


def _moment_s(text: str, option: str) -> float:
    from weir.errors import BadRequestError
    from weir.ledger.usage import parse_moment

    try:
        return parse_moment(text) / 1000
    except BadRequestError as error:
        raise CommandError(f"{option}: {error.message}", ExitCode.USAGE) from None


def _plain(kept: Kept) -> dict[str, Any]:
    from weir.autoscaling.keeping import plain

    found: dict[str, Any] = plain(kept)
    return found


def _pools(kept: Kept) -> list[tuple[str, ...]]:
    from weir.autoscaling.explaining import moment

    rows: list[tuple[str, ...]] = []
    for pool in kept.state.pools:
        named = kept.model if pool.name == kept.model else f"{kept.model}:{pool.name}"
        capacity = pool.capacity
        each = f"{capacity.prefill_tokens_per_s:,.0f} / {capacity.decode_tokens_per_s:,.0f}"
        target = kept.targets.get(pool.name, 0)
        counts = (str(target), str(pool.ready), str(pool.starting), f"{pool.least} to {pool.most}")
        usd = f"{target * pool.usd_per_hour:.2f}"
        rows.append((named, *counts, each, f"{pool.start_s:.0f} s", usd, moment(kept.at_s)))
    return rows


def _as_data(name: str, found: list[Comparison], steps: list[Step]) -> dict[str, Any]:
    from weir.autoscaling.keeping import plain

    return {"policy": name, "models": plain(found), "steps": plain(steps)}


def _print_diff(name: str, found: list[Comparison], steps: list[Step]) -> None:
    from weir.autoscaling.explaining import counted, moment

    heads = ("MODEL", "HOURS", "USD", f"USD {name}", "CHANGES", f"CHANGES {name}", "DIFFERING")
    rows = [
        (
            each.model,
            f"{each.seconds / 3600:.1f}",
            f"{each.usd:.2f}",
            f"{each.other_usd:.2f}",
            str(each.changes),
            str(each.other_changes),
            f"{each.differing_s / max(1.0, each.seconds):.0%} of the time",
        )
        for each in found
    ]
    print_table(heads, rows, _NOTHING)
    shown = _turns(steps)
    if shown:
        typer.echo("\nWhere they begin to differ, or differ otherwise:")
    for step in shown[:_SHOWN_STEPS]:
        typer.echo(
            f"  {moment(step.at_s)}  {step.model}: {counted(step.targets)}; {name}: "
            f"{counted(step.other)} ({step.because})"
        )
    if len(shown) > _SHOWN_STEPS:
        typer.echo(f"  and {len(shown) - _SHOWN_STEPS} more (--json has all)")


def _turns(steps: list[Step]) -> list[Step]:
    last: dict[str, tuple[object, object]] = {}
    found = []
    for step in steps:
        now = (dict(step.targets), dict(step.other))
        if now[0] != now[1] and last.get(step.model) != now:
            found.append(step)
        last[step.model] = now
    return found
