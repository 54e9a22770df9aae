"""The pools of a model: groups of its replicas that differ in what they do, run on, or cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, field_validator

from weir.settings.autoscaling import AutoscalingSettings
from weir.settings.engine import EngineSettings, ParallelSettings, check_engine_args
from weir.settings.notices import NoticeSettings
from weir.settings.section import Finding, Section
from weir.settings.tiers import KvTiersSettings

Role = Literal["mixed", "prefill", "decode"]
PoolName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
#: Prompts are cut into blocks, and bounded, once for all replicas of a model.
_OF_THE_MODEL = (
    "block_size",
    "max_model_len",
    "prefix_caching_hash_algo",
    "kv_cache_dtype",
    "tokenizer",
)


class PoolEngineSettings(Section):
    """What a pool's engine has differently from the model's ``engine``: ``args`` and ``env`` are
    laid over the model's, key by key. ``kv_tiers``: null is as the model's, false is none."""

    mode: Literal["forked", "process", "stub"] | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    yielding: bool | None = None
    kv_tiers: KvTiersSettings | Literal[False] | None = None

    @field_validator("args")
    @classmethod
    def _usable(cls, args: dict[str, Any]) -> dict[str, Any]:
        for key in args:
            if key in _OF_THE_MODEL:
                raise ValueError(f"{key} is the same in all pools: models[].engine.args")
        check_engine_args(args)
        return args

    def over(self, engine: EngineSettings) -> EngineSettings:
        """The whole engine section of the pool."""
        return EngineSettings(
            mode=engine.mode if self.mode is None else self.mode,
            args={**engine.args, **self.args},
            env={**engine.env, **self.env},
            yielding=engine.yielding if self.yielding is None else self.yielding,
            kv_tiers=engine.kv_tiers if self.kv_tiers is None else self.kv_tiers or None,
        )


class PoolPriceSettings(Section):
    """What one replica of the pool costs; None: as the model's."""

    replica_usd_per_hour: float | None = Field(None, ge=0)


class PoolSettings(Section):
    """Replicas of one model that do the same and run on the same kind of machine.

    ``role``: a ``prefill`` replica computes prompts whose answers a replica of another role
    generates; a ``decode`` one generates those, and takes whole requests; a ``mixed`` one does
    whatever comes. ``changes_role``: the replicas of a mixed pool can be told to do one of the two
    only, also where no pool has a role; with ``by_demand`` the autoscaler tells them, so that as
    many compute prompts as the demand has prompts. ``market``: what kind of capacity the machines
    are; ``region``: where they are (None: as ``prices.region`` says), for the price of an hour.
    ``notices``: where it is told that one is about to be taken away. Where
    ``parallel``, ``accelerator``, ``num_cpus`` or a part of ``engine`` and ``price`` is not given,
    it is the model's.
    """

    name: PoolName
    role: Role = "mixed"
    changes_role: bool | Literal["by_demand"] = False
    replicas: int = Field(1, ge=0)
    autoscaling: AutoscalingSettings | None = None
    parallel: ParallelSettings | None = None
    accelerator: str | None = None
    market: Literal["on_demand", "spot"] = "on_demand"
    region: str | None = None
    notices: NoticeSettings | None = None
    num_cpus: float | None = Field(None, ge=0)
    engine: PoolEngineSettings = PoolEngineSettings()
    price: PoolPriceSettings = PoolPriceSettings()


class _Price(Protocol):
    def model_copy(self, *, update: Mapping[str, Any]) -> Any: ...


def pooled(pool: PoolSettings, engine: EngineSettings, price: _Price) -> dict[str, Any]:
    """What of a model's settings is different for a pool."""
    own = {
        "parallel": pool.parallel,
        "accelerator": pool.accelerator,
        "num_cpus": pool.num_cpus,
    }
    update: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
    if pool.price.replica_usd_per_hour is not None:
        hourly = {"replica_usd_per_hour": pool.price.replica_usd_per_hour}
        update["price"] = price.model_copy(update=hourly)
    return {
        **update,
        "replicas": pool.replicas,
        "autoscaling": pool.autoscaling,
        "engine": pool.engine.over(engine),
    }


def hands_off(pools: Sequence[PoolSettings], pairs_of_mixed: bool) -> bool:
    """Whether prompts may be computed in one replica and answered by another."""
    changing = any(pool.role != "mixed" or pool.changes_role for pool in pools)
    return bool(pools) and (pairs_of_mixed or changing)


def pool_findings(
    pools: Sequence[PoolSettings], alone: bool, pairs_of_mixed: bool
) -> Iterator[Finding]:
    """Why the pools do not make a model, seen from the model. ``alone``: the model itself says how
    many replicas it has."""
    if not pools:
        if pairs_of_mixed:
            yield Finding(
                ("routing", "disaggregation", "params", "pairs_of_mixed"),
                "replicas hand prompts over only where the model has pools; "
                "one pool of role mixed is enough",
            )
        return
    if alone:
        yield Finding(
            ("pools",), "each pool has replicas and autoscaling of its own, the model none"
        )
    names = [pool.name for pool in pools]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Finding(("pools", number, "name"), f"{name!r} is defined twice")
    for number, pool in enumerate(pools):
        if pool.changes_role and pool.role != "mixed":
            yield Finding(
                ("pools", number, "changes_role"),
                f"only mixed replicas can change their role, and those of {pool.name!r} are "
                f"{pool.role}; leave it away, or make the role mixed",
            )
    roles = {pool.role for pool in pools}
    if roles == {"prefill"}:
        yield Finding(
            ("pools",),
            "prefill replicas generate no answers; add a pool of role decode or mixed",
        )
    if roles == {"decode"}:
        yield Finding(
            ("pools",),
            "nobody computes prompts for the decode replicas; add a pool of role prefill, "
            "or call them mixed",
        )
