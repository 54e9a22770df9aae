"""The deployments that a model is served by: one, or one for each of its pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.names import model_deployment
from deployments.roles import RoleKeeper
from deployments.tiers.config import tiers_transfer
from weir.settings import ModelSettings, Settings
from weir.settings.notices import NoticeSettings
from weir.settings.pools import PoolSettings, Role, hands_off

#: So long a prefill replica keeps the blocks of a prompt for a replica that has not asked for them.
#: The one that they are for renews that every sixth of it, for as long as the request waits there.
LEASE_S = 12
_KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer", "mixed": "kv_both"}


@dataclass(frozen=True, slots=True)
class Membership:
    """What a replica tells of its pool. ``pool`` is empty where its model has none.
    ``hands_off``, ``notices``: as the pool's."""

    pool: str = ""
    role: Role = "mixed"
    hands_off: bool = False
    notices: NoticeSettings | None = None

    @property
    def changes_role(self) -> bool:
        """Whether its engine was started for both halves of a request."""
        return self.hands_off and self.role == "mixed"

    def metadata(self) -> dict[str, Any]:
        """In the words of the replica's metadata."""
        told = {"pool": self.pool, "role": self.role, "changes_role": self.changes_role}
        return told if self.pool else {}

    def roles(self) -> RoleKeeper:
        """The role that the replica has now, and may change."""
        return RoleKeeper(self.role, self.changes_role)


@dataclass(frozen=True, slots=True)
class Pool:
    """One deployment. ``model``: as its replicas serve it, with their number. ``name`` is empty
    where the model has no pools. ``hands_off``: its replicas give KV blocks to replicas of other
    pools, or take theirs. ``notices``: where a replica hears that its machine is taken away.
    ``splits``: which replicas only compute prompts follows the demand."""

    model: ModelSettings
    name: str = ""
    role: Role = "mixed"
    spot: bool = False
    hands_off: bool = False
    notices: NoticeSettings | None = None
    splits: bool = False

    @property
    def deployment(self) -> str:
        """Its name in Ray Serve."""
        return model_deployment(self.model.name, self.name)

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{self.model.name}:{self.name}" if self.name else self.model.name

    def kv_transfer(self) -> dict[str, Any] | None:
        """vLLM's ``kv_transfer_config``; None: blocks stay where they are computed.

        To other replicas: NIXL, unless the settings name another connector; what is lost on the way
        is computed again. To memory and disk: see :mod:`deployments.tiers.config`.
        """
        if not self.hands_off:
            return tiers_transfer(self.model, self.name)
        given: Mapping[str, Any] = self.model.engine.args.get("kv_transfer_config") or {}
        config = {
            "kv_connector": "NixlConnector",
            "kv_role": _KV_ROLES[self.role],
            "kv_load_failure_policy": "recompute",
            **({"kv_buffer_device": "cpu"} if self.model.accelerator is None else {}),
            **given,
        }
        if config["kv_connector"] == "NixlConnector":
            extra = config.get("kv_connector_extra_config") or {}
            config["kv_connector_extra_config"] = {"kv_lease_duration": LEASE_S, **extra}
            # With bounds in time: see the module. vLLM's own is had by naming its module.
            config.setdefault("kv_connector_module_path", "deployments.patient_nixl")
        return config


def pools_of(model: ModelSettings) -> list[Pool]:
    """The deployments of a model."""
    if not model.pools:
        return [Pool(model)]
    handing = hands_off(model.pools, model.routing.disaggregation.pairs_of_mixed)
    return [_pool(model, pool, handing) for pool in model.pools]


def runs(model: ModelSettings) -> bool:
    """Whether a deployment may have replicas: ``replicas: 0`` stops a model, unless it may sleep
    and so begins with none."""
    scaling = model.autoscaling
    return model.replicas > 0 or (scaling is not None and not scaling.min_replicas)


def scales(settings: Settings) -> bool:
    """Whether the number or the role of some replicas is chosen while the platform runs."""
    pools = [pool for model in settings.models for pool in pools_of(model)]
    return any(pool.model.autoscaling or pool.splits for pool in pools)


def _pool(model: ModelSettings, pool: PoolSettings, handing: bool) -> Pool:
    served = model.of_pool(pool)
    spot = pool.market == "spot"
    splits = pool.changes_role == "by_demand"
    return Pool(served, pool.name, pool.role, spot, handing, pool.notices, splits)
