"""``weir slo``: what the settings aim at, and rules for Prometheus that watch it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.directory import JsonOption, print_json, print_table
from weir.cli.exits import CommandError

if TYPE_CHECKING:
    from weir.settings import Settings

slo_app = typer.Typer(
    help="Objectives, and the rules and alerts for Prometheus that watch them.",
    epilog="Example: [bold]weir slo rules --config my.yaml --out weir-rules.yaml[/]",
    no_args_is_help=True,
)
ProfileOption = Annotated[
    str, typer.Option("--profile", help="Settings that ship with weir: laptop or gpu.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar="WEIR_CONFIG", help="YAML file over the profile."),
]


@slo_app.command("show", epilog="Example: [bold]weir slo show --config my.yaml[/]")
def show(
    profile: ProfileOption = "laptop",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which share of requests is to be good, per class."""
    from weir.slo import BURNS, targets

    settings = _settings(profile, config)
    found = targets(settings)
    if as_json:
        rows: list[dict[str, Any]] = [
            {
                "class": each.priority,
                "objective": each.objective,
                "share": each.share,
                "limit_ms": each.limit_ms,
            }
            for each in found
        ]
        print_json({"window_days": settings.slo.window_days, "objectives": rows})
        return
    days = settings.slo.window_days
    burns = [f"{burn.factor(days) * (1 - each.share):.2%}" for each in found for burn in BURNS]
    table = [
        (
            each.priority or "(not known)",
            each.objective,
            "" if each.limit_ms is None else f"{each.limit_ms:g} ms",
            f"{each.share:.3%}",
            *burns[3 * number : 3 * number + 3],
        )
        for number, each in enumerate(found)
    ]
    heads = ("Class", "Objective", "Limit", "Good", "Page at (1 h)", "(6 h)", "Ticket at (3 d)")
    print_table(heads, table, "No class has objectives.")


@slo_app.command("rules", epilog="Example: [bold]weir slo rules --format operator[/]")
def rules(
    profile: ProfileOption = "laptop",
    config: ConfigOption = None,
    form: Annotated[
        str,
        typer.Option("--format", help="prometheus (for rule_files) or operator (PrometheusRule)."),
    ] = "prometheus",
    out: Annotated[Path | None, typer.Option(help="Into this file; left out: printed.")] = None,
    runbooks: Annotated[
        str, typer.Option(help="Where the alerts' pages are, with a slash at the end.")
    ] = "docs/runbooks/",
) -> None:
    """Make recording rules and alerts of the settings' classes and objectives."""
    from weir.slo import FORMATS, render

    known = next((each for each in FORMATS if each == form), None)
    if known is None:
        raise CommandError(f"--format: {form!r} is not one of {', '.join(FORMATS)}")
    told = render(
        _settings(profile, config), known, runbooks=runbooks, head="Made by weir slo rules."
    )
    if out is None:
        typer.echo(told, nl=False)
        return
    try:
        out.write_text(told, "utf-8")
    except OSError as error:
        raise CommandError(f"{out} cannot be written: {error.strerror}") from None


def _settings(profile: str, config: Path | None) -> Settings:
    from weir.settings import load_settings

    return load_settings(profile, config)
