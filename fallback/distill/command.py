"""Distil a small causal language model from a large one of the same tokenizer.

The student learns the teacher's soft targets (top-k logits, temperature-scaled KL), the teacher's
own generations, the corpus, and if asked for its own samples as the teacher scores them. Works for
any pair of Hugging Face causal models with one tokenizer; without --data it reads weir's support
desk, which the models that ship with weir speak.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

import torch
from rich.console import Console
from torch import multiprocessing

from fallback.distill import models
from fallback.distill.compute import Peak, probe_peak
from fallback.distill.corpus import Corpus, DeskCorpus, JsonlCorpus
from fallback.distill.display import shown, utilisation
from fallback.distill.export import export, read_manifest
from fallback.distill.feed import Feed
from fallback.distill.generations import Sampling, TeacherTexts
from fallback.distill.loop import Bench, make_accelerator, make_bench, restore, run
from fallback.distill.mixture import GROUND_TRUTH_ONLY, Kind, Mixture
from fallback.distill.picture import draw_losses, text_picture
from fallback.distill.plan import DistillationPlan, Progress
from weir import samples
from weir.errors import ConfigError

DESK_STUDENT: Final = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3}
"""The shipped student: the teacher's architecture at 1/6.3 of its parameters."""
_EXAMPLE = """\
example:
  weir distill builtin:teacher --out student --steps 3000
  weir distill ./big --data chats.jsonl --student-config small.json --out ./small"""


def parser() -> argparse.ArgumentParser:
    """The command line; every field of the mixture is a flag."""
    made = argparse.ArgumentParser(
        prog="weir distill",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("teacher", help="directory, Hugging Face id, or builtin:NAME")
    made.add_argument("--out", type=Path, required=True, help="the student's folder")
    made.add_argument(
        "--student-config", type=Path, metavar="FILE",
        help="JSON of what differs from the teacher's config; default: weir's desk student",
    )  # fmt: skip
    made.add_argument("--student", help="start from these weights instead of fresh ones")
    made.add_argument("--data", type=Path, help="JSONL: messages, prompt and completion, or text")
    made.add_argument("--cache", type=Path, help="checkpoints, generations; default OUT.cache")
    made.add_argument(
        "--texts", type=Path, help="the teacher's generations; default in --cache; may be shared"
    )
    made.add_argument(
        "--cache-logits", action="store_true", help="keep the teacher's top k on disk"
    )
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    made.add_argument("--ground-truth-only", action="store_true", help="no teacher: to compare")
    made.add_argument(
        "--no-copying", action="store_true", help="random start instead of a copying circuit"
    )
    made.add_argument("--max-share", type=float, default=1 / 6, help="of the teacher's parameters")
    made.add_argument("--max-length", type=int, default=1024, help="tokens of a JSONL row")
    made.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    made.add_argument("--name", default="weir-desk-student", help="name for the manifest")
    made.add_argument("--version", default="1.0.0", help="version for the manifest")
    for group, kind in (("plan", DistillationPlan), ("mixture", Mixture)):
        flags = made.add_argument_group(group)
        for field in fields(kind):
            _add_flag(flags, field.name, field.default)
    return made


def _add_flag(flags: Any, name: str, default: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        flags.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
    else:
        flags.add_argument(flag, type=type(default), default=default, help="default %(default)s")


def _of(kind: type[Any], arguments: argparse.Namespace) -> Any:
    return kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})


def mixture_of(arguments: argparse.Namespace) -> Mixture:
    """The mixture that the command line asks for. Raises ConfigError if it makes no sense."""
    if arguments.ground_truth_only:
        return GROUND_TRUTH_ONLY
    try:
        made: Mixture = _of(Mixture, arguments)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return made


def _cache(arguments: argparse.Namespace) -> Path:
    found: Path = arguments.cache or arguments.out.with_name(f"{arguments.out.name}.cache")
    return found


def build_student(arguments: argparse.Namespace, teacher: Any, plan: DistillationPlan) -> Any:
    """The student at its start. Raises ConfigError where it is too large or does not fit."""
    if arguments.student:
        student = models.load_model(arguments.student)
        if student.config.vocab_size != teacher.config.vocab_size:
            raise ConfigError(f"{arguments.student}: its vocabulary is not the teacher's")
    else:
        file = arguments.student_config
        overrides = models.read_overrides(file) if file else dict(DESK_STUDENT)
        student = models.student_from(teacher, overrides, plan.seed)
        if not arguments.no_copying and student.config.model_type == "llama":
            plant_copying(student, plan.seed)
    share = models.parameter_count(student) / models.parameter_count(teacher)
    if share > arguments.max_share:
        raise ConfigError(
            f"the student has {share:.3f} of the teacher's parameters, more than "
            f"--max-share {arguments.max_share:.3f}"
        )
    return student


def plant_copying(student: Any, seed: int) -> bool:
    """Starts a Llama that is large enough with a copying circuit; False if it is too small."""
    from fallback.training.circuits import CODE, CONST, seed_copying

    config = student.config
    fits = (
        config.num_hidden_layers >= 2
        and config.num_key_value_heads >= 2
        and config.num_attention_heads >= 2 * config.num_key_value_heads
        and config.head_dim >= CODE
        and config.hidden_size >= 3 * CODE + CONST
        and config.tie_word_embeddings
    )
    if fits:
        seed_copying(student, seed)
    return bool(fits)


def corpus_of(arguments: argparse.Namespace, tokenizer: Any, seed: int) -> Corpus:
    """The corpus that the command line names."""
    if arguments.data:
        return JsonlCorpus(arguments.data, tokenizer, seed, arguments.max_length)
    return DeskCorpus(tokenizer.backend_tokenizer, seed)


def prepare(arguments: argparse.Namespace, rank: int) -> tuple[Bench, Progress]:
    """One worker, ready to run: models, feeds, and the checkpoint's place if it resumes."""
    plan, mixture = _of(DistillationPlan, arguments), mixture_of(arguments)
    accelerator = make_accelerator(plan, arguments.cpu or not torch.cuda.is_available())
    teacher = models.load_model(arguments.teacher)
    tokenizer = models.load_tokenizer(arguments.teacher)
    pad = models.pad_id(tokenizer)
    student = build_student(arguments, teacher, plan)
    corpus = corpus_of(arguments, tokenizer, plan.seed)
    mark = f"{models.weights_sha256(models.folder_of(arguments.teacher))[:16]}-{corpus.fingerprint}"
    feeds: dict[Kind, Feed] = {}

    def feed(kind: Kind, rows: Any) -> None:
        seed = f"{kind}/{plan.seed}"
        feeds[kind] = Feed(rows, plan.max_tokens, pad, seed, rank, plan.workers)

    feed("truth", corpus.rows)
    if mixture.sequence_share > 0:
        folder = (arguments.texts or _cache(arguments) / "texts") / mark
        texts = TeacherTexts(teacher, corpus, folder, plan.text_pools, pad, Sampling())
        with accelerator.autocast():
            texts.prepare(rank, plan.workers)
        accelerator.wait_for_everyone()
        feed("teacher", texts.rows)
    if mixture.on_policy_share > 0:
        feed("student", corpus.texts)
    logits = None
    if arguments.cache_logits:
        shape = f"{mark}-k{mixture.top_k}-t{mixture.temperature}-{plan.max_tokens}-{plan.workers}"
        logits = _cache(arguments) / "logits" / shape
    asked = teacher if mixture.needs_teacher else None
    bench = make_bench(accelerator, student, asked, feeds, mixture, plan, pad, logits)
    progress = Progress()
    if arguments.resume and not restore(bench, progress, _cache(arguments)):
        raise ConfigError(f"--resume: no checkpoint in {_cache(arguments)}")
    return bench, progress


def work(rank: int, arguments: argparse.Namespace, peak: Peak, port: int) -> None:
    """One worker's whole run; worker 0 shows it and writes the student."""
    if arguments.workers > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": arguments.workers}
        # Accelerate would give each worker all cores: threads that meet at every operator.
        os.environ["OMP_NUM_THREADS"] = "1"
        os.environ.update(address | {name: str(value) for name, value in place.items()})
        torch.set_num_threads(1)
    bench, progress = prepare(arguments, rank)
    if rank:
        run(bench, progress, _cache(arguments), None)
    else:
        console = Console(stderr=True, highlight=False)
        with shown(bench.plan, progress, peak, console) as listen:
            run(bench, progress, _cache(arguments), listen)
        finish(arguments, bench, progress, peak, console)
    bench.accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def finish(
    arguments: argparse.Namespace, bench: Bench, progress: Progress, peak: Peak, console: Console
) -> None:
    """Writes the student's folder and the picture; prints where."""
    mfu, hfu = utilisation(progress, peak)
    teacher = models.folder_of(arguments.teacher)
    content = {
        "name": arguments.name,
        "version": arguments.version,
        "seed": bench.plan.seed,
        "corpus_version": None if arguments.data else samples.CORPUS_VERSION,
        "lineage": {
            "teacher": read_manifest(Path(teacher)).get("name", arguments.teacher),
            "teacher_sha256": models.weights_sha256(teacher),
            "corpus": str(arguments.data.name)
            if arguments.data
            else f"desk {samples.CORPUS_VERSION}",
            "method": "ground truth" if arguments.ground_truth_only else "distillation",
            "mixture": asdict(bench.mixture),
        },
        "training": {
            "steps": progress.step,
            "tokens": progress.tokens,
            "minutes": round(progress.seconds / 60, 1),
            "tokens_per_s": round(progress.tokens / max(progress.seconds, 1e-9)),
            "mfu": float(f"{mfu:.3g}"),
            "hfu": float(f"{hfu:.3g}"),
            "peak_flops_per_s": round(peak.flops_per_s),
            "peak_how": peak.how,
            "plan": asdict(bench.plan),
        },
    }
    tokenizer = models.load_tokenizer(arguments.teacher)
    export(arguments.out, bench.student, tokenizer, content)
    picture = arguments.out.with_name(f"{arguments.out.name}-loss.png")
    history = arguments.out.with_name(f"{arguments.out.name}-loss.json")
    history.write_text(json.dumps(progress.history) + "\n")
    drawn = draw_losses(progress.history, picture, f"{arguments.name} {arguments.version}")
    console.print(text_picture(progress.history), markup=False, soft_wrap=True)
    console.print(f"student in {arguments.out}", markup=False, soft_wrap=True)
    if drawn:
        console.print(f"loss picture in {picture}", markup=False, soft_wrap=True)


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit code 2 where the arguments cannot be used."""
    arguments = parser().parse_args(argv)
    try:
        mixture_of(arguments)
        peak = probe_peak(max(arguments.workers, torch.get_num_threads()))
        if arguments.workers > 1:
            spawned = (arguments, peak, _free_port())
            multiprocessing.spawn(work, args=spawned, nprocs=arguments.workers)
        else:
            work(0, arguments, peak, 0)
    except ConfigError as error:
        print(f"weir distill: {error.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
