"""How vLLM runs inside a replica, and over how many accelerators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from weir.settings.parsers import check_parsers
from weir.settings.section import Finding, Section
from weir.settings.tiers import KvTiersSettings, tier_findings

_OWNED_ELSEWHERE = {
    "model": "models[].source",
    "served_model_name": "models[].name",
    "tensor_parallel_size": "models[].parallel.tensor",
    "pipeline_parallel_size": "models[].parallel.pipeline",
    "data_parallel_size": "models[].parallel.data",
    "enable_expert_parallel": "models[].parallel.experts",
    "speculative_config": "models[].speculative",
    "enable_lora": "models[].adapters",
    "lora_modules": "models[].adapters",
    "max_lora_rank": "models[].adapters",
    "max_loras": "models[].adapter_slots",
    "host": "server.host",
    "port": "server.port",
}


class ParallelSettings(Section):
    """How many accelerators one replica spans: ``tensor`` * ``pipeline`` * ``data``.

    ``data``: so many copies of the attention layers share the replica's requests (data-parallel
    attention); with ``experts``, a mixture-of-experts model's experts are spread over all of them
    (wide expert parallelism).
    """

    tensor: int = Field(1, ge=1)
    pipeline: int = Field(1, ge=1)
    data: int = Field(1, ge=1)
    experts: bool = False

    @property
    def workers(self) -> int:
        """Accelerators, or on a CPU processes, of one replica."""
        return self.tensor * self.pipeline * self.data

    def engine_args(self) -> dict[str, Any]:
        """vLLM's arguments."""
        args: dict[str, Any] = {
            "tensor_parallel_size": self.tensor,
            "pipeline_parallel_size": self.pipeline,
        }
        if self.data > 1:
            args |= {"data_parallel_size": self.data, "data_parallel_backend": "ray"}
        if self.experts:
            args["enable_expert_parallel"] = True
        return args

    def findings(self, accelerator: str | None, mode: str) -> Iterator[Finding]:
        """What vLLM's CPU build, or an engine in a fork, cannot do, and what would do; seen from
        the section that has this one."""
        if self.experts and self.workers == 1:
            yield Finding(
                ("parallel", "experts"),
                "spreads experts over several accelerators; raise parallel.data or parallel.tensor",
            )
        if accelerator is not None or mode == "stub":
            return
        if self.pipeline > 1:
            yield Finding(("parallel", "pipeline"), "vLLM's CPU build has no pipeline parallelism")
        if self.data > 1:
            yield Finding(("parallel", "data"), "needs an accelerator")
        if mode == "forked" and self.tensor > 1:
            yield Finding(
                ("parallel", "tensor"),
                "a forked engine is one process; use engine.mode: process, "
                "with VLLM_CPU_OMP_THREADS_BIND: nobind in engine.env",
            )


class EngineSettings(Section):
    """How vLLM runs inside a replica.

    ``mode``: ``forked`` runs the engine core in a fork of the replica (fast start, shared memory;
    CPU only), ``process`` is vLLM's own default, ``stub`` has no model at all and only emits
    words, to measure what is around it. ``args`` are vLLM's engine arguments, passed through.
    ``yielding``: prompts give way to more urgent ones between two steps; it needs vLLM's
    ``scheduling_policy: priority`` and has no effect without, nor beside a ``scheduler_cls``.
    ``kv_tiers``: where KV blocks go that the device has no room for.
    """

    mode: Literal["forked", "process", "stub"] = "process"
    args: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    yielding: bool = True
    kv_tiers: KvTiersSettings | None = None

    @field_validator("args")
    @classmethod
    def _usable(cls, args: dict[str, Any]) -> dict[str, Any]:
        check_engine_args(args)
        return args

    def findings(self, parallel: ParallelSettings, hands_off: bool) -> Iterator[Finding]:
        """Why the engine cannot have its tiers; see :func:`weir.settings.tiers.tier_findings`."""
        copies = parallel.pipeline * parallel.data
        yield from tier_findings(self.kv_tiers, self.mode, self.args, copies, hands_off)


def check_engine_args(args: dict[str, Any]) -> None:
    """Refuse what settings of weir's own say, and parsers that vLLM does not have.

    Raises:
        ValueError: which key, and what says it instead.
    """
    for key in args:
        if key in _OWNED_ELSEWHERE:
            raise ValueError(f"{key} is set by {_OWNED_ELSEWHERE[key]}")
    check_parsers(args)
