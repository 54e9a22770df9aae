"""Since when replicas take a machine, as Ray Serve and their own processes know it."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from deployments.names import APP

_ASK_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class ServedReplica:
    """A replica as Ray Serve has it, from when it is asked for until its process has ended.
    ``asked_s``: when that was, in seconds since the epoch. ``placed``: it has a process, which may
    still be loading its model; without one it may wait for a machine."""

    replica_id: str
    deployment: str
    asked_s: float
    placed: bool


def served_replicas() -> list[ServedReplica]:
    """All of weir's. Asks Serve's controller, and waits.

    Raises:
        ray.exceptions.RayError, ValueError: there is no controller now.
    """
    import ray

    from deployments.cluster import serve_controller

    told = ray.get(serve_controller().get_serve_instance_details.remote(), timeout=_ASK_TIMEOUT_S)
    application = told["applications"].get(APP, {})
    return [
        ServedReplica(
            replica["replica_id"], name, replica["start_time_s"], replica.get("pid") is not None
        )
        for name, deployment in application.get("deployments", {}).items()
        for replica in deployment["replicas"]
    ]


def process_began_s() -> float:
    """When this process began, in seconds since the epoch. Ray may have kept it idle before it
    became a replica: :attr:`ServedReplica.asked_s` is then later."""
    return float(psutil.Process().create_time())
