"""Before a machine of a Ray cluster goes: its replicas leave it, and their streams go on elsewhere.

``python -m deployments.leaving --grace-s N`` is called on the machine itself (on Kubernetes by the
pod's preStop hook, while its grace period runs). It asks Ray to drain this node, so that Serve
starts replicas elsewhere and stops those here in its own orderly way, in which gateways move their
streams; and returns when no replica is left here, or after ``N`` seconds. With ``--head`` it drains
nothing and waits until no other node is left: where a whole cluster goes, the head, without which
nobody can be stopped in order, goes last.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import psutil

_LOG = logging.getLogger("weir.leaving")
_POLL_S: Final = 0.5
#: What Serve calls the processes of replicas.
_REPLICA: Final = "ray::ServeReplica"
#: What a replica may still need when Ray is told to be done: the rest is for ending its process.
_SPARE_S: Final = 5.0


def wait_while(
    busy: Callable[[], bool], timeout_s: float, clock: Callable[[], float], pause: Callable[[], Any]
) -> bool:
    """Until ``busy`` is false or the time is over; whether it is."""
    end = clock() + timeout_s
    while busy():
        if clock() >= end:
            return False
        pause()
    return True


def replicas_here() -> int:
    """How many replicas run on this machine (in this pod)."""
    return sum(_is_replica(each) for each in psutil.process_iter(["cmdline"]))


def _is_replica(process: psutil.Process) -> bool:
    title: str = (process.info["cmdline"] or [""])[0]
    return title.startswith(_REPLICA)


class RayNodes:
    """The nodes of the cluster that this machine belongs to, asked of Ray's control store."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        """Raises:
        RayError, OSError, ValueError: there is no Ray here, or it does not answer.
        """
        from ray import _raylet
        from ray._private import services

        self._timeout_s = timeout_s
        address = services.canonicalize_bootstrap_address_or_die("auto")
        self._store = _raylet.GcsClient(address=address)  # type: ignore[attr-defined]
        self._own = services.get_node_ip_address()

    def others(self) -> int:
        """Nodes that are alive beside those of this machine."""
        return sum(host != self._own for host in self._alive().values())

    def drain(self, within_s: float) -> None:
        """Have Serve move what runs here elsewhere, within the time.

        Raises:
            RuntimeError: Ray refuses.
        """
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        until_ms = int((time.time() + within_s) * 1000)
        for node, host in self._alive().items():
            if host == self._own:
                taken, why = self._store.drain_node(node, reason, "the machine goes", until_ms)
                if not taken:
                    raise RuntimeError(why)

    def _alive(self) -> dict[str, str]:
        from ray.core.generated.gcs_pb2 import GcsNodeInfo

        nodes = self._store.get_all_node_info(timeout=self._timeout_s)
        return {
            each.hex(): info.node_manager_address
            for each, info in nodes.items()
            if info.state == GcsNodeInfo.ALIVE
        }


def leave(grace_s: float, head: bool) -> bool:
    """See above; whether everything had left in time. What Ray cannot do any more is waited for
    all the same: streams need only the two processes that they run between."""
    from ray.exceptions import RayError

    away = (RayError, RuntimeError, OSError, ValueError)
    nodes: RayNodes | None = None
    try:
        nodes = RayNodes()
        if not head:
            nodes.drain(max(grace_s - _SPARE_S, 1.0))
    except away as error:
        _LOG.warning("Ray cannot be told that this machine goes: %s", error)

    def busy() -> bool:
        if not head:
            return replicas_here() > 0
        try:
            return nodes is not None and nodes.others() > 0
        except away:  # a control store that is gone keeps nobody
            return False

    return wait_while(busy, grace_s, time.monotonic, lambda: time.sleep(_POLL_S))


def main(argv: list[str] | None = None) -> int:
    """The exit code is 0: whoever stops the machine goes on anyway."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grace-s", type=float, required=True)
    parser.add_argument("--head", action="store_true")
    arguments = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    if not leave(arguments.grace_s, arguments.head):
        _LOG.warning("something was still running here after %s s", arguments.grace_s)
    return 0


if __name__ == "__main__":
    sys.exit(main())
