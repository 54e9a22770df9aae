"""What the student saves: FLOPs, bytes and tokens/s of teacher, quantized teacher and student.

One vLLM engine after the other, with the laptop profile's engine settings and one thread, no prefix
cache. Decoding is timed on the desk's held-out questions, prefill on random tokens. The profile
says how much of a step is the engine and not the model. The same student then proposes tokens for
the teacher at several batch sizes. What the ratio becomes for a pair of useful size is simulated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from load_tests.report import Mark, Report, absent_row, bench_parser, emit
from load_tests.student.engines import ROOT, Engine, EngineError, measure
from load_tests.student.pair import pair_rows, speculative_rows
from weir import samples
from weir.settings.speculative import SpeculativeSettings

ARTIFACTS: Final = ROOT / "platform" / "weir" / "artifacts"
BATCHES: Final = (1, 2, 4, 8, 16)
FIGURES: Final = ("prefill_tokens_per_s", "decode_tokens_per_s_batch_1")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit code 0 when the bench ran, whatever the marks."""
    options = _parser().parse_args(argv)
    batches = BATCHES[:1] if options.quick else BATCHES
    prompts, examples = _prompts(options.teacher, options.seed, 8 if options.quick else 32)
    with tempfile.TemporaryDirectory(prefix="weir-student-") as scratch:
        engines = _engines(options, Path(scratch))
        results: dict[str, dict[str, Any]] = {}
        failures: dict[str, str] = {}
        for engine in engines:
            print(f"measuring {engine.system} …", file=sys.stderr, flush=True)
            try:
                results[engine.system] = measure(
                    engine, prompts, batches, options.seed, 1 if options.quick else 4
                )
            except EngineError as error:
                failures[engine.system] = str(error)
        rows = [
            _row(engine, results.get(engine.system), failures.get(engine.system, ""), examples)
            for engine in engines
        ]
    for name in (_drafted(options.tokens), f"{_drafted(options.tokens)} up to batch 2"):
        rows += _speculative(results, name)
    rows += pair_rows()
    if (acceptance := _acceptance(results.get(_drafted(options.tokens)))) is not None:
        rows += speculative_rows(acceptance, options.tokens)
    report = Report("student", options.seed, rows, _marks(rows, results, options), NOTES)
    return emit(report, options, argv)


NOTES: Final = (
    "tokens/s are per second of the engine process's CPU time, one thread: wall time where nothing "
    "else runs",
    "engine_share is the part of the time to answer that is spent outside the model's forward "
    "pass and output layer: scheduling, inputs, sampling; that part does not shrink with the model",
    "the simulated rows are rooflines from published figures (load_tests/student/pair.py)",
)


def _parser() -> argparse.ArgumentParser:
    parser = bench_parser("student", __doc__)
    parser.add_argument("--teacher", type=Path, default=ARTIFACTS / "teacher")
    parser.add_argument("--student", type=Path, default=ARTIFACTS / "student")
    parser.add_argument("--tokens", type=int, default=3, help="proposed per step")
    return parser


def _prompts(
    teacher: Path, seed: int, count: int
) -> tuple[list[list[int]], list[tuple[samples.Example, Any]]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(teacher)
    common = [name for name, group in samples.INTENTS.items() if group == "common"]
    examples = list(samples.requests(seed, count, intents=common))
    texts = [
        tokenizer.apply_chat_template(
            list(example.messages), add_generation_prompt=True, tokenize=False
        )
        for example in examples
    ]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return ids, [(example, tokenizer) for example in examples]


def _drafted(tokens: int) -> str:
    return f"teacher, student proposes {tokens}"


def _engines(options: argparse.Namespace, scratch: Path) -> list[Engine]:
    teacher, student = str(options.teacher), str(options.student)
    made = [Engine("teacher", teacher), Engine("student", student)]
    for scheme in ("w8a8", "w4a16"):
        out = scratch / scheme
        command = [sys.executable, "-m", "fallback.quantize.command", teacher]
        command += ["--scheme", scheme, "--out", str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
        # The int8 kernel takes bfloat16 or float16 activations only.
        made.append(Engine(f"teacher {scheme}, bf16", str(out), {"dtype": "bfloat16"}))
    made.append(Engine("teacher, bf16", teacher, {"dtype": "bfloat16"}))
    made.append(
        Engine("teacher, bf16, KV fp8", teacher, {"dtype": "bfloat16", "kv_cache_dtype": "fp8"})
    )
    speculation = {
        "method": "draft_model",
        "model": student,
        "num_speculative_tokens": options.tokens,
    }
    made.append(Engine(_drafted(options.tokens), teacher, {"speculative_config": speculation}))
    # Off above a batch of 2: whether the schedule that weir's setting makes costs anything.
    scheduled = SpeculativeSettings(draft=student, tokens=options.tokens, max_batch=2)
    config = {"speculative_config": scheduled.engine_argument(student)}
    made.append(Engine(f"{_drafted(options.tokens)} up to batch 2", teacher, config))
    return made


def _manifest(folder: str) -> dict[str, Any]:
    path = Path(folder) / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def _right(result: Mapping[str, Any], examples: Sequence[tuple[samples.Example, Any]]) -> float:
    """Share of right answers among those that the engine gave at the largest batch."""
    answers = result["decode"][-1]["answers"]
    oks = [
        samples.check(example, tokenizer.decode(ids, skip_special_tokens=True))
        for (example, tokenizer), ids in zip(examples, answers, strict=True)
    ]
    return sum(oks) / len(oks)


def _row(
    engine: Engine,
    result: Mapping[str, Any] | None,
    failure: str,
    examples: Sequence[tuple[samples.Example, Any]],
) -> dict[str, Any]:
    table = "one engine at a time, float32 unless named, one thread"
    if result is None:
        return {**absent_row(engine.system, failure, FIGURES), "table": table}
    manifest = _manifest(engine.folder)
    weights = sum(p.stat().st_size for p in Path(engine.folder).glob("*.safetensors"))
    return {
        "table": table,
        "system": engine.system,
        "parameters": manifest.get("parameters"),
        "weight_bytes": weights,
        "flops_per_token": _flops(engine.folder),
        "prefill_tokens_per_s": result["prefill_tokens_per_s"],
        **{
            f"decode_tokens_per_s_batch_{one['batch']}": one["decode_tokens_per_s"]
            for one in result["decode"]
        },
        "engine_share_batch_1": 1 - result["decode"][0]["model_share"],
        f"engine_share_batch_{result['decode'][-1]['batch']}": 1
        - result["decode"][-1]["model_share"],
        "accuracy_on_engine": _right(result, examples),
        "kv_tokens": result["kv_tokens"],
        "rss_mb": result["rss_mb"],
    }


def _flops(folder: str, context: int = 400) -> float:
    """Forward FLOPs of one token behind `context` others, from the configuration (a Llama's)."""
    config: dict[str, int] = json.loads((Path(folder) / "config.json").read_text())
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    matrices = 2 * hidden * queries + 2 * hidden * keys + 3 * hidden * config["intermediate_size"]
    attended = 2 * queries * context
    return 2.0 * (layers * (matrices + attended) + hidden * config["vocab_size"])


def _acceptance(result: Mapping[str, Any] | None) -> float | None:
    if result is None:
        return None
    proposed = sum(one["num_draft_tokens"] for one in result["decode"])
    accepted = sum(one["num_accepted_tokens"] for one in result["decode"])
    return accepted / proposed if proposed else None


def _speculative(results: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Acceptance and speed-up by batch size, against the teacher alone."""
    plain, drafted = results.get("teacher"), results.get(name)
    if plain is None or drafted is None:
        return []
    rows = []
    for alone, helped in zip(plain["decode"], drafted["decode"], strict=True):
        proposed = helped["num_draft_tokens"]
        same = sum(a == b for a, b in zip(alone["answers"], helped["answers"], strict=True))
        rows.append(
            {
                "table": f"speculative decoding: {name}",
                "system": f"batch {alone['batch']}",
                "acceptance": helped["num_accepted_tokens"] / proposed if proposed else None,
                "plain_tokens_per_s": alone["decode_tokens_per_s"],
                "speculative_tokens_per_s": helped["decode_tokens_per_s"],
                "speedup": helped["decode_tokens_per_s"] / alone["decode_tokens_per_s"],
                "identical_answers": same / len(alone["answers"]),
            }
        )
    return rows


def _common(manifest: Mapping[str, Any]) -> float | None:
    found = manifest.get("held_out", {}).get("groups", {}).get("common")
    return None if found is None else float(found["accuracy"])


def _marks(
    rows: Sequence[Mapping[str, Any]],
    results: Mapping[str, Mapping[str, Any]],
    options: argparse.Namespace,
) -> list[Mark]:
    teacher, student = _manifest(str(options.teacher)), _manifest(str(options.student))
    share = ratio = gain = None
    missing = None if student else "no student in this checkout"
    unknown = missing
    if student:
        share = student["parameters"] / teacher["parameters"]
        mine, its = _common(student), _common(teacher)
        unknown = None if mine and its else "weir eval --write-manifest was not run on it"
        ratio = mine / its if mine and its else None
        compared = student.get("comparison")
        gain = mine - compared["common"] if mine and compared else None
    speedups = [row["speedup"] for row in rows if "speculative_tokens_per_s" in row]
    failed = None if speedups else "no figures: an engine did not run"
    return [
        Mark("student's parameters over the teacher's", share, "", 1 / 6, "lower", missing),
        Mark("student's common accuracy over the teacher's", ratio, "", 0.9, "higher", unknown),
        Mark(
            "distilled over ground truth alone, common accuracy, difference", gain, "", 0.0,
            "higher", None if gain is not None else missing or "not compared",
        ),
        Mark(
            "speculative decoding, best speed-up", max(speedups, default=None), "x", 1.0, "higher",
            failed,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
