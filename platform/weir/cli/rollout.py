"""``weir rollout``: a candidate version is tried in the place of a model, and judged."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weir.cli.directory import (
    DatabaseOption,
    JsonOption,
    SetOption,
    actor,
    changes_of,
    moment,
    open_store,
    print_json,
    print_table,
    told,
)
from weir.cli.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from weir.rollouts.course import Rollout
    from weir.rollouts.store import RolloutStore
    from weir.settings import Settings

rollout_app = typer.Typer(
    help="Canaries: try a candidate version in the place of a model, judged while it answers.",
    epilog="Example: [bold]weir rollout start support support-next[/]",
    no_args_is_help=True,
)
ModelArgument = Annotated[str, typer.Argument(help="The model's name.", metavar="MODEL")]


@rollout_app.command("start", epilog="Example: [bold]weir rollout start support support-next[/]")
def start(
    model: ModelArgument,
    candidate: Annotated[str, typer.Argument(help="Another model of the settings.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML: steps, mirror, judge (docs/rollouts.md).")
    ] = None,
    fields: SetOption = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a candidate a growing share of a model's conversations."""
    from weir.rollouts.checking import check_candidate

    settings = _rollout_settings(config, changes_of(fields or []))
    with told():
        if database is None:
            check_candidate(_platform_settings(), model, candidate, settings.judge)
        made = _store(database).start(actor(), model, candidate, settings)
    _tell(made, as_json)


@rollout_app.command("status", epilog="Example: [bold]weir rollout status support[/]")
def status(
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show rollouts: shares, and what was found of the candidates so far."""
    with told():
        store = _store(database)
        rollouts = [store.rollout(model)] if model is not None else list(store.rollouts())
        findings = store.findings()
    if as_json:
        print_json([_told(each, findings) for each in rollouts])
        return
    if not rollouts:
        typer.echo("There are no rollouts.")
    for each in rollouts:
        _print(each, findings.get(each.id, {}))


@rollout_app.command("promote", epilog="Example: [bold]weir rollout promote support[/]")
def promote(
    model: ModelArgument, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """The candidate answers everything from now on."""
    with told():
        changed = _store(database).end(actor(), model, "promoted", "by hand")
    _tell(changed, as_json)
    if not as_json:
        typer.echo(
            f"Next: name {changed.candidate}'s source as that of {model} in the settings, "
            f"'weir apply', then 'weir rollout close {model}'."
        )


@rollout_app.command("abort", epilog="Example: [bold]weir rollout abort support[/]")
def abort(
    model: ModelArgument, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """The model answers everything itself again, from the next request on."""
    with told():
        changed = _store(database).end(actor(), model, "aborted", "by hand")
    _tell(changed, as_json)


@rollout_app.command("hold", epilog="Example: [bold]weir rollout hold support[/]")
def hold(
    model: ModelArgument,
    resume: Annotated[bool, typer.Option("--resume", help="Let it go on.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep the candidate's share as it is; a candidate that is worse is still rolled back."""
    with told():
        changed = _store(database).hold(actor(), model, not resume)
    _tell(changed, as_json)


@rollout_app.command("close", epilog="Example: [bold]weir rollout close support[/]")
def close(
    model: ModelArgument, database: DatabaseOption = None, as_json: JsonOption = False
) -> None:
    """After a promotion: the model's settings name the new version, and it answers itself again."""
    with told():
        changed = _store(database).close(actor(), model)
    _tell(changed, as_json)


def _store(database: str | None) -> RolloutStore:
    from weir.rollouts.store import RolloutStore

    return RolloutStore(open_store(database).engine)


def _platform_settings() -> Settings:
    """Those of the platform in the state folder, whether it runs or not."""
    from weir.cli.state import State
    from weir.settings import load_settings

    file = State.from_environment().settings_file
    return load_settings("laptop", file if file.exists() else None)


def _rollout_settings(config: Path | None, changes: dict[str, Any]) -> Any:
    """Raises:
    CommandError: they cannot be so.
    """
    import yaml
    from pydantic import ValidationError

    from weir.settings.rollout import RolloutSettings

    tree: dict[str, Any] = {}
    try:
        read = yaml.safe_load(config.read_text("utf-8")) if config is not None else {}
        tree = _merged(read or {}, changes)
        return RolloutSettings.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg']}"
            for each in error.errors()
        ]
        raise CommandError("\n".join(lines), ExitCode.USAGE) from None
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise CommandError(f"{config}: {error}", ExitCode.USAGE) from None


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(tree)
    for name, value in changes.items():
        below = merged.get(name)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[name] = _merged(below, value) if both and below is not None else value
    return merged


def _tell(rollout: Rollout, as_json: bool) -> None:
    if as_json:
        print_json(_told(rollout, {}))
        return
    typer.echo(
        f"{rollout.candidate} in the place of {rollout.model}: {rollout.state}, "
        f"{rollout.share:.0%} of conversations"
    )


def _told(rollout: Rollout, findings: dict[str, Any]) -> dict[str, Any]:
    from weir.rollouts.course import as_document

    (document,) = as_document([rollout])
    found = findings.get(rollout.id, {}).get("criteria", [])
    return {**document, "share": rollout.share, "findings": found}


def _print(rollout: Rollout, found: dict[str, Any]) -> None:
    _tell(rollout, as_json=False)
    spent_s = (rollout.ended_s or time.time()) - rollout.started_s
    reason = f"; {rollout.reason}" if rollout.reason else ""
    typer.echo(f"  since {moment(rollout.started_s)} ({spent_s / 60:.0f} min){reason}")
    rows = [
        (
            f"  {each['criterion']}",
            str(each["samples"]),
            "–" if each["observed"] is None else f"{each['observed']:.3f}",
            f"{each['allowed']:g}",
            f"{each['evidence_bad']:.2g}",
            f"{each['evidence_good']:.2g}",
            "bad" if each["bad"] else "good" if each["good"] else "",
        )
        for each in found.get("criteria", [])
    ]
    heads = ("  CRITERION", "SAMPLES", "OBSERVED", "ALLOWED", "EVIDENCE BAD", "GOOD", "VERDICT")
    if rows:
        print_table(heads, rows, "")
        _explain_perplexity(rollout, found["criteria"])


def _explain_perplexity(rollout: Rollout, criteria: list[dict[str, Any]]) -> None:
    judge = rollout.settings.judge.perplexity
    if judge is None:
        return
    typer.echo(
        f"  perplexity: by what share it is higher than that of the live version's answer to the "
        f"same prompt, to {judge.model}; {judge.share:.0%} of mirrored answers"
    )
    seen = next((each["samples"] for each in criteria if each["criterion"] == "perplexity"), 0)
    if not seen:
        typer.echo(f"  no answer has been scored yet: does {judge.model} run?")
