"""Everything that can be said of settings before anything starts: by the tree, and by the rooms.

The supervisor asks here before it starts a platform or changes one, and ``weir config check`` asks
the same (``python -m deployments.checking``), so what the one passes the other does not refuse. The
kernel may not import the rooms; what they have registered is handed to it from here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import router.admission
import router.disaggregation.rules
import router.scorers  # noqa: F401 - registers the policies, as the lines above limits and rules
import weir.autoscaling.policies  # noqa: F401 - registers the autoscaling policies
from deployments.gateway.fallbacks import cascade_of
from deployments.sources import model_source
from features.enrichment import rule_findings
from router.admission.limit import LIMITS
from router.disaggregation.rule import RULES
from router.policy import POLICIES
from weir.adapters import inspect_adapter
from weir.autoscaling.registry import POLICIES as AUTOSCALING_POLICIES
from weir.cli.effective import with_absolute_sources
from weir.errors import ConfigError
from weir.settings import ModelSettings, Settings, SettingsError, parse_settings
from weir.settings.load import overlaid
from weir.settings.parts import Parts
from weir.settings.schema import settings_schema
from weir.settings.section import Finding

#: What the settings may choose by name.
PARTS: Final = Parts(
    policies=POLICIES, rules=RULES, limits=LIMITS, autoscaling=AUTOSCALING_POLICIES
)
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


def checked(
    tree: dict[str, Any],
    origin: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    *,
    static: bool = False,
) -> Settings:
    """The settings of a tree that a platform can be started with. ``environment``: has the secrets
    that the settings name (None: this process's own). ``folder``: relative sources are relative to
    it (None: to the working folder). ``static``: nothing is said of files and secrets, which
    another machine has.

    Raises:
        SettingsError: everything that is wrong with them.
    """
    present = os.environ if environment is None else environment

    def further(settings: Settings) -> Iterator[Finding]:
        placed = with_absolute_sources(settings, folder) if folder else settings
        return room_findings(placed, present)

    return parse_settings(tree, origin, PARTS, (lambda _: ()) if static else further)


def room_findings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What the rooms know to be wrong with settings that the tree has nothing against."""
    for finding in rule_findings(settings.features, environment):
        yield finding.below("features")
    for number, model in enumerate(settings.models):
        for finding in _of_model(model, settings):
            yield finding.below("models", number)


def _of_model(model: ModelSettings, settings: Settings) -> Iterator[Finding]:
    registry = settings.registry.url
    sources = {("source",): model.source, ("speculative", "draft"): model.speculative.draft}
    for place, source in sources.items():
        if source is not None and (said := _said(partial(_find, source, model, registry))):
            yield Finding(place, said)
    for number, adapter in enumerate(model.adapters):
        if said := _said(partial(inspect_adapter, adapter.source, registry)):
            yield Finding(("adapters", number, "source"), said)
    if said := _said(partial(_cascade, model, settings)):
        yield Finding(("fallback", "cascade"), said)


def _find(source: str, model: ModelSettings, registry: str | None) -> None:
    """Raises: ConfigError: the model is not there, damaged, or has no weights though its engine
    would load some."""
    folder = Path(model_source(source, registry))
    load_format = model.engine.args.get("load_format")
    if not folder.is_dir() or model.engine.mode == "stub" or load_format == "dummy":
        return
    if not any(file.suffix in _WEIGHTS for file in folder.iterdir()):
        raise ConfigError(f"{source} has no weights (files in {', '.join(_WEIGHTS)})")


def _cascade(model: ModelSettings, settings: Settings) -> None:
    """Raises: ConfigError: nobody says when the student's answer may stand."""
    student = settings.model(model.fallback.student) if model.fallback else None
    if student is None or model.fallback is None:
        return
    try:
        folder = Path(model_source(student.source, settings.registry.url))
    except ConfigError:
        return  # said of the student itself
    if folder.is_dir():  # of others the gateway sees the files when they are downloaded
        cascade_of(model.fallback, folder)


def _said(look: Callable[[], object]) -> str | None:
    try:
        look()
    except ConfigError as error:
        return error.message
    except OSError as error:
        return str(error)
    return None


def main(argv: list[str] | None = None) -> int:
    """Print one JSON object: a schema, or the models and problems of a settings file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", action="store_true")
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("file", type=Path, nargs="?")
    arguments = parser.parse_args(argv)
    if arguments.schema:
        print(json.dumps(settings_schema(PARTS), indent=2))
        return 0
    told: dict[str, Any] = {"origin": str(arguments.file), "models": [], "problems": []}
    try:
        tree = overlaid(arguments.profile, arguments.file)
        folder = arguments.file.absolute().parent if arguments.file else None
        settings = checked(tree, str(arguments.file), folder=folder, static=arguments.static)
        told["models"] = [model.name for model in settings.models]
    except SettingsError as error:
        told |= {
            "origin": error.origin,
            "problems": [[each.path, each.message] for each in error.problems],
        }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
