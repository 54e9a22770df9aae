"""How many replicas a model should have, from what its replicas say of themselves.

Serve's own policy counts requests at handles; here the bytes do not go through handles, so it
would see none. Each replica reports what it has in flight, and this divides the sum by the target
(Serve's own rule, on another count). Bounds and delays are applied by Serve.
"""

from __future__ import annotations

import math
from typing import Any

ONGOING = "weir_ongoing"
POLICY = "deployments.autoscaling:replicas_for_load"
ZERO_POLICY = "deployments.autoscaling:no_replicas"


def replicas_for_load(context: Any) -> tuple[int, dict[str, Any]]:
    """Serve's autoscaling policy (called in its controller): replicas wanted, and no state."""
    current = int(context.current_num_replicas)
    reported = (context.aggregated_metrics or {}).get(ONGOING) or {}
    if not current or not reported:
        return int(context.target_num_replicas), {}
    # A replica that has not reported yet is taken to be as busy as the others.
    mean = sum(reported.values()) / len(reported)
    target = float(context.config.get_target_ongoing_requests())
    return wanted_replicas(mean * current, target), {}


def no_replicas(context: Any) -> tuple[int, dict[str, Any]]:
    """For a model that is configured and not running."""
    return 0, {}


def wanted_replicas(ongoing: float, target_per_replica: float) -> int:
    """So many that none has more than its target."""
    return max(1, math.ceil(ongoing / target_per_replica - 1e-9))
