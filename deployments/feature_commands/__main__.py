"""The face of ``weir features``: names, options, help."""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from deployments.feature_commands.place import Place
from features.desk_data import VIEWS, DeskDataSpec, TenantShare, write_desk_data
from features.desk_data.spec import DEFAULT_TENANTS
from weir.cli.exits import CommandError, ExitCode
from weir.cli.main import run_app

app = typer.Typer(
    name="weir features",
    help="Features for prompts: the Feast repository, the data behind it, offline generation.",
    epilog="Start here: [bold]weir features apply && weir features materialize[/]",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data folder; features/ in the state folder.")
]
RedisOption = Annotated[
    str | None,
    typer.Option("--redis", help="Online store: redis://HOST:PORT/DB; the platform's own."),
]
_NAMES = tuple(view.name for view in VIEWS)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


@app.command(epilog="Example: [bold]weir features apply --customers 50000[/]")
def apply(
    data: DataOption = None,
    redis: RedisOption = None,
    customers: Annotated[int, typer.Option(min=4, help="How many customers.")] = 50_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 7,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Day of the data, YYYY-MM-DD; today (UTC).")
    ] = None,
    tenants: Annotated[
        str | None, typer.Option(help="Tenants and their shares, as demo=0.6,acme=0.4.")
    ] = None,
    zipf: Annotated[float, typer.Option(help="Exponent of the popularity.")] = 1.0,
    new_data: Annotated[
        bool, typer.Option("--new-data", help="Make the data set again if there is one.")
    ] = False,
) -> None:
    """Make the data set if there is none, and register entity, views, sources and services."""
    place, console = Place.of(data, redis), _stderr()
    if new_data or not place.data.manifest_file.exists():
        spec = DeskDataSpec(
            as_of=_day(as_of),
            seed=seed,
            customers=customers,
            tenants=_tenants(tenants),
            zipf_exponent=zipf,
        )
        with console.status("making the data set") as status:
            manifest = write_desk_data(spec, place.data, status.update)
        console.print(
            f"data set of {customers} customers in {place.data.root}, sha256 {manifest['sha256']}",
            markup=False,
            soft_wrap=True,
        )
    with place.repository() as repository:
        for name in repository.apply():
            typer.echo(f"applied {name}")


@app.command(epilog="Example: [bold]weir features materialize --view customer_orders[/]")
def materialize(
    data: DataOption = None,
    redis: RedisOption = None,
    view: Annotated[
        list[str] | None, typer.Option(help="Only this view; may be given several times.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Everything again, not only what came since.")
    ] = False,
) -> None:
    """Write each entity's newest features into the online store."""
    from deployments.feature_commands.display import progress_bar

    place, names = Place.of(data, redis), _views(view)
    place.data.manifest()
    with place.repository() as repository:
        until = dt.datetime.now(dt.UTC)
        for name in names:
            started = dt.datetime.now(dt.UTC)
            with progress_bar(_stderr(), name, None) as told:
                written = repository.materialize(
                    [name], until, everything=everything, progress=lambda _, rows: told(rows)
                )
            seconds = (dt.datetime.now(dt.UTC) - started).total_seconds()
            typer.echo(f"{name}: {written[name]} rows in {seconds:.1f} s")


@app.command(epilog="Example: [bold]weir features push customer_profile events.jsonl[/]")
def push(
    view: Annotated[str, typer.Argument(help=f"One of {', '.join(_NAMES)}.")],
    file: Annotated[typer.FileText, typer.Argument(help="JSON lines; - for standard input.")],
    data: DataOption = None,
    redis: RedisOption = None,
) -> None:
    """Push fresh events: into the online store at once, and into the history.

    A line has "entity" (or "tenant_id" and "entity_id"), "event_timestamp" with a time zone, and
    all features of the view.
    """
    (name,) = _views([view])
    rows = [_event(number, line) for number, line in enumerate(file, 1) if line.strip()]
    if not rows:
        raise CommandError("no events", ExitCode.USAGE)
    place = Place.of(data, redis)
    place.data.manifest()
    with place.repository() as repository:
        typer.echo(f"{name}: pushed {repository.push(name, rows)} rows")


@app.command(epilog="Example: [bold]weir features inspect 10023 --tenant acme[/]")
def inspect(
    entity: Annotated[str, typer.Argument(help="TENANT/ID, or the id alone.")],
    tenant: Annotated[
        str | None,
        typer.Option(
            help="Whose entity an id alone is; the tenant of the settings if they name one at most "
            "(demo on the laptop profile)."
        ),
    ] = None,
    data: DataOption = None,
    redis: RedisOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show an entity's features: values, age, freshness, lineage, and whether it is long-tail."""
    from deployments.feature_commands.display import held_as_json, held_table, long_tail

    place = Place.of(data, redis)
    key = _key(entity, tenant, place)
    with place.repository() as repository:
        held = repository.held(key)
    now = dt.datetime.now(dt.UTC)
    if as_json:
        typer.echo(json.dumps(held_as_json(held, now)))
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        known = "" if held.known else "nothing is known of it; "
        tail = "long-tail (no generated features)" if long_tail(held, now) else "head"
        console.print(f"{held.entity}: {known}{tail}", markup=False)
        console.print(held_table(held, now))
    if not held.known:
        raise typer.Exit(ExitCode.FAILURE)


@app.command(epilog="Example: [bold]weir features generate --count 500 --max-tokens 300000[/]")
def generate(
    data: DataOption = None,
    redis: RedisOption = None,
    count: Annotated[int, typer.Option(min=1, help="Entities of a new run.")] = 256,
    from_queue: Annotated[
        bool, typer.Option("--from-queue", help="Those that requests missed, not the most popular.")
    ] = False,
    tenant: Annotated[
        str | None, typer.Option(help="Only this tenant's (not with the queue).")
    ] = None,
    through: Annotated[
        str | None,
        typer.Option(
            help="Through a platform at batch priority: its URL (key in WEIR_API_KEY), 'platform' "
            "for the running one, or 'engine' for an engine of its own. Left out: the running "
            "platform, else an engine."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Which model; the first one.")] = None,
    template: Annotated[
        str | None, typer.Option(help="desk (for weir's teacher), general, or a file.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens that the run may cost, never exceeded.")
    ] = None,
    part_size: Annotated[int, typer.Option(min=1, help="Entities of one part.")] = 32,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray Data workers; 0: in this process, without Ray.")
    ] = 1,
    ray_address: Annotated[
        str, typer.Option(help="A Ray cluster to join; local: one for the run.")
    ] = "local",
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests in flight, through a platform.")
    ] = 8,
    max_invalid: Annotated[
        float, typer.Option(min=0, max=1, help="Share of invalid answers that spoils a part.")
    ] = 0.05,
    max_nulls: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unfaithful summaries that spoils a part.")
    ] = 0.5,
    new_run: Annotated[
        bool, typer.Option("--new-run", help="Do not go on with an unfinished run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Let the teacher write features in batch, check them, publish and materialize them.

    A run that was interrupted goes on where it was: what has been paid for is not asked again.
    """
    from deployments.feature_commands import generating
    from features.generation import CheckLimits, read_template

    place = Place.of(data, redis)
    target = through or generating.default_through(place)
    options = generating.GenerateOptions(
        count=count,
        from_queue=from_queue,
        tenant=tenant,
        through=None if target == "engine" else target,
        model=model,
        template=generating.template_of(place, template, read_template),
        max_tokens=max_tokens,
        part_size=part_size,
        workers=workers,
        concurrency=concurrency,
        limits=CheckLimits(max_invalid, max_nulls),
        new_run=new_run,
        ray_address=ray_address,
    )
    factory = generating.writers(place, options)
    summary = generating.generate(place, options, factory, _stderr())
    if as_json:
        typer.echo(summary.as_json())
    else:
        _say(summary)
    if summary.publication.parts_quarantined or (summary.stopped and not summary.entities_paid):
        raise typer.Exit(ExitCode.FAILURE)


@app.command(
    epilog="Example: [bold]weir features history --entities labels.csv --out training.parquet[/]"
)
def history(
    entities: Annotated[
        Path,
        typer.Option(help="CSV, JSON lines or parquet: entity, event_timestamp, and any labels."),
    ],
    out: Annotated[Path, typer.Option(help="Where to: .parquet or .csv.")],
    service: Annotated[str, typer.Option(help="Feature service.")] = "support_desk",
    late: Annotated[
        bool,
        typer.Option("--late", help="Use rows that arrived only after the asked time, too."),
    ] = False,
    data: DataOption = None,
    redis: RedisOption = None,
) -> None:
    """Export training data: for each row the features that were known at its time, none later."""
    from features import history as joins

    if service not in joins.known_services():
        known = ", ".join(joins.known_services())
        raise CommandError(f"--service: no {service!r}; known: {known}", ExitCode.USAGE)
    place = Place.of(data, redis)
    place.data.manifest()
    frame = joins.read_entities(entities)
    with place.repository() as repository:
        joined = joins.training_set(repository, frame, service, only_known=not late)
    joins.write_training_set(joined, out)
    typer.echo(f"{out}: {len(joined)} rows, {len(joined.columns)} columns")


def _say(summary: Any) -> None:
    done = summary.publication
    typer.echo(
        f"version {done.version}: paid for {summary.entities_paid} entities "
        f"({summary.prompt_tokens} prompt + {summary.output_tokens} output tokens)"
    )
    typer.echo(
        f"published {done.rows}, materialized {summary.materialized}; parts: "
        f"{done.parts_published} good, {done.parts_quarantined} quarantined, {done.parts_left} left"
    )
    if done.null_summaries:
        typer.echo(f"{done.null_summaries} summaries left out: not what the features say")
    for reason in done.reasons:
        typer.echo(f"quarantined: {reason}", err=True)
    if summary.stopped:
        typer.echo(f"stopped: {summary.stopped}; the same command goes on", err=True)


def _day(text: str | None) -> dt.date:
    if text is None:
        return dt.datetime.now(dt.UTC).date()
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise CommandError(f"--as-of: {text!r} is not YYYY-MM-DD", ExitCode.USAGE) from None


def _tenants(text: str | None) -> tuple[TenantShare, ...]:
    if text is None:
        return DEFAULT_TENANTS
    try:
        pairs = [each.rpartition("=") for each in text.split(",")]
        return tuple(TenantShare(name, float(share)) for name, _, share in pairs if name)
    except ValueError:
        raise CommandError(f"--tenants: {text!r} is not NAME=SHARE,…", ExitCode.USAGE) from None


def _views(names: list[str] | None) -> list[str]:
    for name in names or ():
        if name not in _NAMES:
            raise CommandError(f"no view {name!r}; known: {', '.join(_NAMES)}", ExitCode.USAGE)
    return names or list(_NAMES)


def _key(entity: str, tenant: str | None, place: Place) -> str:
    """Raises: CommandError: no entity, or nobody said whose it is."""
    from features.keys import SEPARATOR, entity_key, split_entity_key

    try:
        if tenant is None and SEPARATOR in entity:
            split_entity_key(entity)
            return entity
        return entity_key(tenant or place.only_tenant(), entity)
    except ValueError as error:
        hint = "give TENANT/ID, or the id with --tenant"
        raise CommandError(str(error), ExitCode.USAGE, hint=hint) from None


def _event(number: int, line: str) -> dict[str, Any]:
    from features.keys import entity_key

    try:
        event = json.loads(line)
        if not isinstance(event, dict):
            raise ValueError("not an object")
        if "entity" not in event:
            event["entity"] = entity_key(event.pop("tenant_id"), event.pop("entity_id"))
    except (ValueError, KeyError) as error:
        raise CommandError(f"line {number}: {error}", ExitCode.USAGE) from None
    return event


if __name__ == "__main__":
    run_app(app)
