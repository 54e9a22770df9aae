"""The Ray Data job: parts in, outcomes out, one writer per worker."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.desk_data import DataFolder
from features.generation.runs import Run
from features.generation.work import Budget, PartOutcome, PartWork
from features.generation.writing import WriterFactory


@dataclass(frozen=True, slots=True)
class Job:
    """``workers`` 0 works in this process, without Ray. ``max_tokens`` counts what this run has
    paid in earlier tries as well. The folders must be the same on all machines of the cluster."""

    run_folder: Path
    data_folder: Path
    factory: WriterFactory
    workers: int = 1
    max_tokens: int | None = None
    ray_address: str = "local"

    def parts_left(self) -> list[int]:
        """Parts that are not finished."""
        run = Run(self.run_folder)
        return [n for n in range(len(run.plan().parts)) if not run.finished(n)]

    def work(self) -> PartWork:
        """One worker's: a fair part of the budget that is left, so that together they keep it."""
        run = Run(self.run_folder)
        left = None
        if self.max_tokens is not None:
            left = max(0, self.max_tokens - run.spent_tokens()) // max(1, self.workers)
        data = DataFolder(self.data_folder)
        return PartWork(run, data, self.factory(), Budget(left), lambda: dt.datetime.now(dt.UTC))


class PartActor:
    """A Ray Data actor: a batch of part numbers in, a batch of outcomes out."""

    def __init__(self, job: Job) -> None:
        self._work = job.work()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcomes = [self._work.do(int(number)) for number in batch["item"]]
        fields = [field.name for field in dataclasses.fields(PartOutcome)]
        return {name: [getattr(each, name) for each in outcomes] for name in fields}


def run_job(job: Job) -> Iterator[PartOutcome]:
    """Work on all parts that are left; outcomes as they come.

    A part that is over budget or failed ends the work: the parts after it would be, too.
    """
    left = job.parts_left()
    if not left:
        return
    for outcome in _here(job, left) if job.workers == 0 else _on_ray(job, left):
        yield outcome
        if outcome.state == "failed":
            return


def _here(job: Job, left: list[int]) -> Iterator[PartOutcome]:
    work = job.work()
    for number in left:
        outcome = work.do(number)
        yield outcome
        if outcome.state != "done":
            return


def _on_ray(job: Job, left: list[int]) -> Iterator[PartOutcome]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if job.ray_address == "local":
        # A token of this cluster's own, so that nothing is written into the home directory.
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray
    import ray.data

    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ray.init(
        # A cluster of our own: the platform's replicas keep the CPUs that they asked for.
        **({"address": job.ray_address} if job.ray_address != "local" else _local(job.workers)),
        logging_level="error",
        log_to_driver=False,
    )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        parts = ray.data.from_items(left, override_num_blocks=len(left))
        done = parts.map_batches(
            PartActor,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=job.workers),
            batch_size=1,
            num_cpus=1,
            num_gpus=job.factory.gpus() or None,
        )
        for row in done.iter_rows():
            yield PartOutcome(**row)
    finally:
        ray.shutdown()


def _local(workers: int) -> dict[str, Any]:
    return {
        "address": "local",
        "num_cpus": workers + 1,
        "include_dashboard": False,
        "object_store_memory": 100 * 1024 * 1024,
        # Ray takes 127.0.0.1 for "find my address out" and would listen on the network.
        "_node_ip_address": "127.0.0.2",
    }
