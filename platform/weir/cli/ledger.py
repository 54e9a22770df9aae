"""``weir usage`` and ``weir cost report``: what was used and what it cost, from the database."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from weir.cli.directory import DatabaseOption, JsonOption, open_store, print_json, print_table, told
from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from weir.ledger.report import CostReport
    from weir.ledger.usage import By, Period

cost_app = typer.Typer(
    help="What the platform costs, and who bears it.",
    epilog="Example: [bold]weir cost report --by tenant --since 7d[/]",
    no_args_is_help=True,
)

SinceOption = Annotated[
    str | None,
    typer.Option(help="From then on: 2026-11-01, 2026-11-01T12:00, or 7d or 12h ago. UTC."),
]
UntilOption = Annotated[str | None, typer.Option(help="Up to then; left out: until now.")]
TenantOption = Annotated[str | None, typer.Option(help="Of this tenant only.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV.")]


@dataclass(frozen=True, slots=True)
class Form:
    """How something is printed."""

    as_json: bool
    as_csv: bool

    def print(self, whole: Any, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """``whole`` as JSON, or the rows."""
        if self.as_json:
            print_json(whole)
        elif self.as_csv:
            from weir.ledger.cells import cell

            out = csv.writer(sys.stdout, lineterminator="\n")
            out.writerow([head.lower().replace(" ", "_") for head in heads])
            out.writerows([cell(each) for each in row] for row in rows)
        else:
            print_table(heads, rows, "Nothing was used in that time.")


def show_usage(
    by: str, since: str | None, until: str | None, tenant: str | None, database: str | None,
    form: Form,
) -> None:  # fmt: skip
    """Print sums of what was used."""
    from weir.ledger.usage import usage

    groups = cast("list[By]", [name.strip() for name in by.split(",") if name.strip()])
    with told():
        period = _period(since, until)
        found = usage(open_store(database).engine, groups, period, tenant)
    names = ("requests", "prompt_tokens", "cached_tokens", "output_tokens", "images", "usd")
    rows = [[*row.group, *(str(row.told(groups)[name]) for name in names)] for row in found]
    heads = [*(name.upper() for name in groups), *(n.upper().replace("_", " ") for n in names)]
    form.print([row.told(groups) for row in found], heads, rows)


@cost_app.command("report", epilog="Example: [bold]weir cost report --by model --since 7d[/]")
def cost_report_command(
    by: Annotated[
        str, typer.Option(help="tenant, model, class, key, label, day, hour, endpoint or pool.")
    ] = "tenant",
    since: SinceOption = None,
    until: UntilOption = None,
    tenant: TenantOption = None,
    picture: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw it, too: a PNG file.")
    ] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Share what replicas cost among those who used them; what was idle is shown apart."""
    from weir.ledger.report import cost_report

    with told():
        report = cost_report(
            open_store(database).engine, cast("By", by), _period(since, until), tenant
        )
    _print_report(report, Form(as_json, as_csv))
    if picture is not None:
        from weir.ledger.picture import draw

        try:
            draw(report, picture)
        except OSError as error:
            raise CommandError(f"--picture: {error}", ExitCode.USAGE) from None


def _print_report(report: CostReport, form: Form) -> None:
    heads = (report.by.upper(), "REQUESTS", "REPLICA HOURS", "COST USD", "BILLED USD")
    rows = [
        (r.group or "–", str(r.requests), f"{r.replica_hours:f}", f"{r.cost_usd:f}",
         f"{r.billed_usd:f}")
        for r in report.rows
    ]  # fmt: skip
    idle = [(_idle(p.model, p.pool), "", "", f"{p.idle_usd:f}", "") for p in report.pools]
    total = ("paid", "", "", f"{report.paid_usd:f}", f"{report.billed_usd:f}")
    form.print(report.told(), heads, [*rows, *idle, total] if rows or idle else [])
    if form.as_json or form.as_csv:
        return
    saved = report.saved
    typer.echo(
        f"\nSaved: {saved.cache_usd:f} USD by cached prompts, {saved.student_usd:f} USD by answers "
        f"of students, {saved.spot_usd:f} USD by spot machines."
    )


def _idle(model: str, pool: str) -> str:
    return f"idle: {model}:{pool}" if pool else f"idle: {model}"


def _period(since: str | None, until: str | None) -> Period:
    from weir.ledger.usage import Period, parse_moment

    return Period(
        parse_moment(since) if since is not None else None,
        parse_moment(until) if until is not None else None,
    )
