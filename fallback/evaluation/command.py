"""Evaluate models next to their teacher, and say whether they pass the gate.

Held-out accuracy per intent, perplexity of the answers, how well confidence tells right from wrong
(with a threshold fitted on one split and verified on another), size and speed. Exit code 0: every
model passed; 1: one did not; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import psutil
import torch
from rich.console import Console
from rich.table import Table

from fallback.distill import models
from fallback.distill.corpus import JsonlCorpus, Row
from fallback.distill.export import read_manifest, write_manifest
from fallback.evaluation import figures
from fallback.evaluation.gate import PRESETS, Gate, judge, metrics
from fallback.evaluation.picture import draw
from fallback.training.batches import encode
from weir import __version__, samples
from weir.errors import ConfigError

FIT_SEED: Final = 20_261_121
VERIFY_SEED: Final = 20_261_122
TEXT_SEED: Final = 20_261_123
_EXAMPLE: Final = """\
example:
  weir eval builtin:student --json
  weir eval ./int8 --gate quantized --picture eval.png"""


def parser() -> argparse.ArgumentParser:
    """The command line; every bound of the gate is a flag."""
    made = argparse.ArgumentParser(
        prog="weir eval",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("models", nargs="+", metavar="MODEL", help="directory, id or builtin:NAME")
    made.add_argument("--teacher", default="builtin:teacher", help="default %(default)s")
    made.add_argument("--baseline", help="the same student made otherwise, to compare")
    made.add_argument("--data", type=Path, help="JSONL for perplexity, in place of weir's desk")
    made.add_argument("--per-intent", type=int, default=40, help="questions per intent and split")
    made.add_argument("--target-accuracy", type=float, default=0.95, help="of what is kept")
    made.add_argument("--gate", choices=sorted(PRESETS), default="student", help="which bounds")
    made.add_argument("--json", action="store_true", help="print one JSON object, no tables")
    made.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON to FILE")
    made.add_argument(
        "--reuse", type=Path, metavar="FILE", help="report of a run before: same models, no work"
    )
    made.add_argument("--picture", type=Path, metavar="PNG", help="draw the figures")
    made.add_argument("--seed", type=int, default=0, help="added to the splits' seeds")
    made.add_argument(
        "--write-manifest", action="store_true", help="put figures into the models' manifests"
    )
    bounds = made.add_argument_group("bounds (over the gate's own; a negative one switches off)")
    for field in fields(Gate):
        bounds.add_argument(f"--{field.name.replace('_', '-')}", type=float)
    return made


def gate_of(arguments: argparse.Namespace) -> Gate:
    """The preset with the bounds that were given."""
    preset = PRESETS[arguments.gate]
    given = {field.name: getattr(arguments, field.name) for field in fields(Gate)}
    bounds = {
        name: (None if value < 0 else value) if value is not None else getattr(preset, name)
        for name, value in given.items()
    }
    return Gate(**bounds)


def held_out_rows(tokenizer: Any, seed: int, count: int) -> list[Row]:
    """Held-out conversations of the desk."""
    talks = itertools.islice(samples.conversations(seed, split="heldout"), count)
    raw, rng = tokenizer.backend_tokenizer, random.Random(seed)
    return [encode(raw, talk, rng) for talk in talks]


def _reused(file: Path | None) -> list[dict[str, Any]]:
    if file is None:
        return []
    try:
        found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["models"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"--reuse: {file} is no report of weir eval: {error!r}") from error
    return found


def figures_of(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything about one model. Raises ConfigError if it cannot be loaded."""
    folder = models.folder_of(model)
    asked = {
        "weights_sha256": models.weights_sha256(folder),
        "per_intent": arguments.per_intent,
        "seed": arguments.seed,
        "data": arguments.data.name if arguments.data else None,
    }
    for known in _reused(arguments.reuse):
        if known.get("asked") == asked:
            name = Path(model.replace(":", "/")).name
            return {**known, "system": name, "source": model}
    loaded, tokenizer = models.load_model(model), models.load_tokenizer(model)
    found: dict[str, Any] = {
        "system": Path(model.replace(":", "/")).name,
        "source": model,
        "asked": asked,
    }
    found |= figures.size(loaded, folder)
    if arguments.data:
        rows = JsonlCorpus(arguments.data, tokenizer, 0, 1024).rows(0)
    else:
        rows = held_out_rows(tokenizer, TEXT_SEED + arguments.seed, 2 * arguments.per_intent)
        count = arguments.per_intent
        fit = figures.ask(loaded, tokenizer, FIT_SEED + arguments.seed, count)
        verify = figures.ask(loaded, tokenizer, VERIFY_SEED + arguments.seed, count)
        found["held_out"] = figures.accuracies([fit, verify])
        found["confidence"] = figures.confidence(fit, verify, arguments.target_accuracy)
    found["perplexity"] = figures.perplexity(loaded, rows, models.pad_id(tokenizer))
    found["speed"] = figures.speed(loaded)
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value


def report(
    arguments: argparse.Namespace,
    all_figures: list[dict[str, Any]],
    baseline: dict[str, Any] | None,
    argv: list[str],
) -> dict[str, Any]:
    """The JSON object: rows and marks as every bench has them, the gate, and all figures.

    `all_figures`: the teacher's, then those of the models that the gate is for.
    """
    teacher, gate = all_figures[0], gate_of(arguments)
    judged = {each["system"]: judge(each, teacher, gate) for each in all_figures[1:]}
    failures = [f"{name}: {text}" for name, one in judged.items() for text in one["failures"]]
    first = next(iter(judged.values()))
    passed = all(one["passed"] for one in judged.values())
    rows = []
    listed = [*all_figures, *([baseline] if baseline else [])]
    for each in listed:
        flat = metrics(each)
        flat.pop("accuracy")
        rows.append({"system": each["system"], **flat})
    marks = [
        {
            "name": f"{name}: {check['name']}",
            "value": check["value"],
            "unit": "",
            "target": check["bound"],
            "better": check["better"],
            "met": check["passed"],
            **({} if check["value"] is not None else {"reason": "not measured"}),
        }
        for name, one in judged.items()
        for check in one["checks"]
    ]
    marks += [_beats(each, baseline) for each in all_figures[1:] if baseline]
    machine = {
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{psutil.virtual_memory().total / 2**30:.1f} GiB",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    made: dict[str, Any] = _rounded(
        {
            "bench": "eval",
            "version": __version__,
            "machine": machine,
            "seed": arguments.seed,
            "command": " ".join(["weir", "eval", *argv]),
            "rows": rows,
            "marks": marks,
            "gate": {
                "passed": passed,
                "failures": failures,
                "checks": first["checks"],
                "metrics": first["metrics"],
            },
            "gates": judged,
            "models": listed,
        }
    )
    return made


def _beats(found: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """A mark: right answers to common questions, more than the baseline's."""
    mine, its = metrics(found)["common"], metrics(baseline)["common"]
    difference = None if mine is None or its is None else mine - its
    return {
        "name": f"{found['system']}: common accuracy over {baseline['system']}'s, difference",
        "value": difference,
        "unit": "",
        "target": 0.0,
        "better": "higher",
        "met": difference is not None and difference > 0,
        **({} if difference is not None else {"reason": "not measured"}),
    }


def tables(made: dict[str, Any]) -> list[Table]:
    """Models side by side, accuracy by intent, the gate."""
    whole = Table(title="models", title_justify="left")
    names = [key for key in made["rows"][0] if key != "system"]
    by_intent = Table(title="held-out accuracy", title_justify="left")
    for table in (whole, by_intent):
        table.add_column("")
        for row in made["rows"]:
            table.add_column(row["system"], justify="right")
    for name in names:
        whole.add_row(name, *(_cell(row[name]) for row in made["rows"]))
    held = [model.get("held_out", {}).get("intents", {}) for model in made["models"]]
    for name in held[0]:
        by_intent.add_row(name, *(_cell(each[name]["accuracy"]) for each in held))
    gate = Table(title="gate", title_justify="left")
    for column in ("check", "value", "bound", "passed"):
        gate.add_column(column)
    for mark in made["marks"]:
        sign = "≤" if mark["better"] == "lower" else "≥"
        verdict = "yes" if mark["met"] else "NO"
        gate.add_row(mark["name"], _cell(mark["value"]), f"{sign} {mark['target']:g}", verdict)
    return [whole, by_intent, gate] if held[0] else [whole, gate]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def keep(
    model: str, found: dict[str, Any], judged: dict[str, Any], baseline: dict[str, Any] | None
) -> None:
    """Puts figures, confidence and the comparison into the model's manifest.

    Raises:
        ConfigError: the model is no folder with a manifest.
    """
    folder = Path(models.folder_of(model))
    content = read_manifest(folder)
    if not content:
        raise ConfigError(f"{model}: --write-manifest needs a folder with a manifest.json")
    content["metrics"] = _rounded(judged["metrics"])
    if "held_out" in found:
        decoded = {"decoding": "greedy", **found["held_out"]}
        content["held_out"] = _rounded(decoded)
        names = ("signal", "first_tokens", "threshold", "target_accuracy", "platt", "verified")
        content["confidence"] = _rounded({name: found["confidence"][name] for name in names})
    if baseline:
        its = metrics(baseline)
        kept = ("common", "rare", "perplexity", "ece", "auroc")
        told = {"baseline": baseline["system"], **{name: its[name] for name in kept}}
        content["comparison"] = _rounded(told)
    write_manifest(folder, content)


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit code says whether every model passed."""
    words = sys.argv[1:] if argv is None else argv
    arguments = parser().parse_args(words)
    console = Console(stderr=True, highlight=False)
    try:
        found = []
        for name in (arguments.teacher, *arguments.models):
            console.print(f"evaluating {name} …", markup=False)
            found.append(figures_of(name, arguments))
        baseline = None
        if arguments.baseline:
            console.print(f"evaluating {arguments.baseline} …", markup=False)
            baseline = figures_of(arguments.baseline, arguments)
        made = report(arguments, found, baseline, list(words))
        if arguments.write_manifest:
            for model, one in zip(arguments.models, found[1:], strict=True):
                keep(model, one, made["gates"][one["system"]], baseline)
    except ConfigError as error:
        print(f"weir eval: {error.message}", file=sys.stderr)
        return 2
    text = json.dumps(made, indent=2, allow_nan=False)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    if arguments.picture and draw(made["models"], arguments.picture):
        console.print(f"picture in {arguments.picture}", markup=False)
    if arguments.json:
        print(text)
    else:
        shown = Console() if sys.stdout.isatty() else Console(width=140)
        for table in tables(made):
            shown.print(table)
    return 0 if made["gate"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
