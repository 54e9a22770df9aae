"""The pools of a model: groups of its replicas that differ in what they do, run on, or cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from weir.settings.autoscaling import AutoscalingSettings
from weir.settings.engine import EngineSettings, ParallelSettings, check_engine_args

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


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class PoolEngineSettings(_Section):
    """What a pool's engine has differently from the model's ``engine``: ``args`` and ``env`` are
    laid over the model's, key by key."""

    mode: Literal["forked", "process", "stub"] | None = None
    args: dict[str, Any] = Field(default_factory=dict)
    env: dict[str, str] = Field(default_factory=dict)
    yielding: bool | None = None

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
        )


class PoolPriceSettings(_Section):
    """What one replica of the pool costs; None: as the model's."""

    replica_usd_per_hour: float | None = Field(None, ge=0)


class PoolSettings(_Section):
    """Replicas of one model that do the same and run on the same kind of machine.

    ``role``: a ``prefill`` replica computes prompts whose answers a replica of another role
    generates; a ``decode`` one generates those, and takes whole requests; a ``mixed`` one does
    whatever comes. ``changes_role``: the replicas of a mixed pool can be told to do one of the two
    only, also where no pool has a role. ``market``: what kind of capacity the machines are. Where
    ``parallel``, ``accelerator``, ``num_cpus`` or a part of ``engine`` and ``price`` is not given,
    it is the model's.
    """

    name: PoolName
    role: Role = "mixed"
    changes_role: bool = False
    replicas: int = Field(1, ge=0)
    autoscaling: AutoscalingSettings | None = None
    parallel: ParallelSettings | None = None
    accelerator: str | None = None
    market: Literal["on_demand", "spot"] = "on_demand"
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


def hands_off(pools: Sequence[PoolSettings], rule_params: Mapping[str, Any]) -> bool:
    """Whether prompts may be computed in one replica and answered by another."""
    return bool(pools) and (
        any(pool.role != "mixed" or pool.changes_role for pool in pools)
        or bool(rule_params.get("pairs_of_mixed"))
    )


def check_pools(pools: Sequence[PoolSettings], alone: bool, rule_params: Mapping[str, Any]) -> None:
    """``alone``: the model itself says how many replicas it has.

    Raises:
        ValueError: the pools do not make a model.
    """
    if rule_params.get("pairs_of_mixed") and not pools:
        raise ValueError(
            "routing.disaggregation.params.pairs_of_mixed: replicas hand prompts over only where "
            "the model has pools; one pool of role mixed is enough"
        )
    if not pools:
        return
    if alone:
        raise ValueError("pools: each pool has replicas and autoscaling of its own, the model none")
    names = [pool.name for pool in pools]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"pools: {duplicate!r} is defined twice")
    if steady := next((p for p in pools if p.changes_role and p.role != "mixed"), None):
        raise ValueError(
            f"pools: {steady.name!r} has role {steady.role}, and only mixed replicas can change "
            "theirs; leave changes_role away, or make the role mixed"
        )
    roles = {pool.role for pool in pools}
    if roles == {"prefill"}:
        raise ValueError(
            "pools: prefill replicas generate no answers; add a pool of role decode or mixed"
        )
    if roles == {"decode"}:
        raise ValueError(
            "pools: nobody computes prompts for the decode replicas; add a pool of role prefill, "
            "or call them mixed"
        )
