"""What things are called in Ray Serve: one application, the gateway in front of the models.

One application because Serve, behind HAProxy, lets only the deployments below the ingress have a
request router of their own. An update still replaces only the deployments that changed.
"""

from __future__ import annotations

APP = "weir"
GATEWAY = "gateway"
_PREFIX = "model-"


def model_deployment(model: str, pool: str = "") -> str:
    """The deployment of a model, or of one of its pools. (No model's name has a plus.)"""
    return _PREFIX + model.replace("/", "--") + (f"+{pool}" if pool else "")


#: Ray's label of the nodes that a pool, or the gateways, run on (``ray.pool_labels``).
POOL_LABEL = "weir/pool"


def pool_label(model: str, pool: str = "") -> str:
    """The label's value for a model without pools, or for one of its pools."""
    return model.replace("/", "--") + (f".{pool}" if pool else "")
