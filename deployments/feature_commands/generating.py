"""``weir features generate``: choose entities, run the job, check, publish, materialize."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from rich.console import Console

from deployments.batch import EngineWriters, PlatformWriters, checkpoint_sha256
from deployments.feature_commands.display import progress_bar
from deployments.feature_commands.place import Place
from features.desk_data import GENERATED
from features.generation import (
    CheckLimits,
    Job,
    ModelIdentity,
    Publication,
    Run,
    RunFolder,
    RunPlan,
    Template,
    WriterFactory,
    head_entities,
    publish,
    run_job,
)
from features.generation.runs import split_into_parts
from features.generation.selection import generated_entities, known_entities
from features.tail import TailQueue
from weir.cli import process
from weir.cli.exits import CommandError, ExitCode
from weir.cli.state import PlatformRecord
from weir.settings import ModelSettings


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """As the command line has them."""

    count: int
    from_queue: bool
    tenant: str | None
    through: str | None
    model: str | None
    template: Template
    max_tokens: int | None
    part_size: int
    workers: int
    concurrency: int
    limits: CheckLimits
    new_run: bool
    ray_address: str = "local"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run cost and what came of it."""

    publication: Publication
    entities_paid: int
    prompt_tokens: int
    output_tokens: int
    materialized: int
    stopped: str | None

    def as_json(self) -> str:
        """One object."""
        done = self.publication
        return json.dumps(
            {
                "version": done.version,
                "entities_paid": self.entities_paid,
                "prompt_tokens": self.prompt_tokens,
                "output_tokens": self.output_tokens,
                "published": done.rows,
                "materialized": self.materialized,
                "parts": {
                    "published": done.parts_published,
                    "quarantined": done.parts_quarantined,
                    "left": done.parts_left,
                },
                "invalid_answers": done.invalid,
                "null_summaries": done.null_summaries,
                "quarantine_reasons": list(done.reasons),
                "stopped": self.stopped,
            }
        )


def writers(place: Place, options: GenerateOptions) -> WriterFactory:
    """``through`` a platform, or an engine of our own with the settings of a served model.

    Raises:
        CommandError: no such model, or no key for the platform.
    """
    if options.through is None:
        return EngineWriters(_model(place, options.model))
    running = _running(place)
    local = options.through == "platform"
    if local and running is None:
        raise CommandError("weir is not running", ExitCode.NOT_RUNNING, hint="start it: weir up")
    url = running.url if local and running else options.through
    key = os.environ.get("WEIR_API_KEY") or (place.state.secrets().demo_key if local else "")
    if not key:
        raise CommandError(f"no key for {url}: set WEIR_API_KEY", ExitCode.USAGE)
    name, checkpoint = options.model or "", f"served by {url}"
    if local:
        model = _model(place, options.model)
        name, checkpoint = model.name, checkpoint_sha256(model.source)
    elif not name:
        raise CommandError("--through URL needs --model NAME", ExitCode.USAGE)
    return PlatformWriters(url, key, name, checkpoint, options.concurrency)


def _model(place: Place, name: str | None) -> ModelSettings:
    settings = place.settings()
    model = settings.models[0] if name is None else settings.model(name)
    if model is None:
        known = ", ".join(each.name for each in settings.models)
        raise CommandError(f"--model: no model {name!r}; known: {known}", ExitCode.USAGE)
    return model


def generate(
    place: Place, options: GenerateOptions, factory: WriterFactory, console: Console
) -> Summary:
    """Finish an unfinished run of the same model and template, or start and finish a new one.

    Raises:
        CommandError: there is nothing to generate, or another command generates here.
    """
    identity = factory.identity()
    with _only_one(place.data.generated), place.online_url() as url:
        run = None
        if not options.new_run:
            run = RunFolder(place.data.generated).unfinished(identity, options.template.sha256)
        if run is None:
            run = _start(place, options, identity, url, console)
        else:
            console.print(f"going on with version {run.version}", markup=False)
        job = Job(
            run.folder,
            place.data.root,
            factory,
            options.workers,
            options.max_tokens,
            options.ray_address,
        )
        paid, prompt_tokens, output_tokens, stopped = _work(job, run, console)
        done = publish(run, place.data, options.limits, dt.datetime.now(dt.UTC))
        materialized = _materialize(place, url, console) if done.rows else 0
        if not done.parts_left:
            _tail(place, url, lambda queue: queue.done(run.plan().entities))
    return Summary(done, paid, prompt_tokens, output_tokens, materialized, stopped)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Two commands on one run would pay for the same entities."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            message = f"another 'weir features generate' works in {folder}"
            raise CommandError(message, ExitCode.CONFLICT) from None
        yield


def _start(
    place: Place, options: GenerateOptions, identity: ModelIdentity, url: str, console: Console
) -> Run:
    entities = _choose(place, options, url)
    if not entities:
        what = "the queue is empty" if options.from_queue else "everybody has them"
        raise CommandError(f"no entity needs generated features: {what}")
    now = dt.datetime.now(dt.UTC)
    plan = RunPlan(
        version=now.strftime("%Y%m%dT%H%M%S%fZ"),
        identity=identity,
        template_name=options.template.name,
        template_text=options.template.text,
        template_sha256=options.template.sha256,
        source="queue" if options.from_queue else "head",
        parts=split_into_parts(entities, options.part_size),
    )
    console.print(f"version {plan.version}: {len(entities)} entities", markup=False)
    return RunFolder(place.data.generated).start(plan)


def _choose(place: Place, options: GenerateOptions, url: str) -> list[str]:
    place.data.manifest()
    if not options.from_queue:
        return head_entities(
            place.data,
            options.count,
            leave_out=generated_entities(place.data),
            tenant=options.tenant,
        )
    known = known_entities(place.data)
    chosen: list[str] = []

    async def take(queue: TailQueue) -> None:
        while len(chosen) < options.count:
            taken = await queue.take(options.count - len(chosen))
            if not taken:
                return
            chosen.extend(each.entity for each in taken if each.entity in known)
            # Ids that nobody has: requests can name anything.
            await queue.done([each.entity for each in taken if each.entity not in known])

    _tail(place, url, take)
    return chosen


def _work(job: Job, run: Run, console: Console) -> tuple[int, int, int, str | None]:
    plan = run.plan()
    finished = sum(len(p) for n, p in enumerate(plan.parts) if run.finished(n))
    paid = prompt_tokens = output_tokens = 0
    stopped = None
    with progress_bar(console, "generating", len(plan.entities)) as told:
        told(finished)
        for outcome in run_job(job):
            paid += outcome.entities
            prompt_tokens += outcome.prompt_tokens
            output_tokens += outcome.output_tokens
            if outcome.state == "done":
                finished += len(plan.parts[outcome.part])
                told(finished)
            elif stopped is None:
                over = f"the budget of {job.max_tokens} tokens is used up"
                stopped = over if outcome.state == "over_budget" else outcome.reason
    return paid, prompt_tokens, output_tokens, stopped


def _materialize(place: Place, url: str, console: Console) -> int:
    from features.repo import FeatureRepository

    repository = FeatureRepository(url, place.data, place.security())
    with progress_bar(console, "materializing", None) as told:
        written = repository.materialize(
            [GENERATED.name],
            dt.datetime.now(dt.UTC),
            everything=False,
            progress=lambda _, rows: told(rows),
        )
    return written[GENERATED.name]


def _tail(place: Place, url: str, use: Callable[[TailQueue], object]) -> None:
    """Use the tail queue, where there is one: it lives in Redis."""
    queue_url = place.queue_url(url)
    if queue_url is None:
        return

    async def within() -> None:
        async with Redis.from_url(queue_url) as redis:
            await use(TailQueue(redis))  # type: ignore[misc]

    asyncio.run(within())


def default_through(place: Place) -> str | None:
    """The running platform if there is one: its replicas are there already, and its admission keeps
    generation behind everybody else."""
    return "platform" if _running(place) is not None else None


def _running(place: Place) -> PlatformRecord | None:
    # A platform that was killed leaves its record behind.
    alive = process.find(place.state.supervisor()) is not None
    return place.state.platform() if alive else None


def template_of(place: Place, name: str | None, read: Callable[[str], Template]) -> Template:
    """The one asked for; else weir's own teacher gets the words it was trained on."""
    if name is not None:
        return read(name)
    own = place.settings().models[0].source.startswith("builtin:")
    return read("desk" if own else "general")
