"""Ray and Ray Serve of one platform: started, addressed, stopped."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from deployments import client_headers
from deployments.haproxy_config import Target
from deployments.names import APP
from weir.settings import Settings

CONTROL_STORE = "Ray's control store"
_NAMED = {"gcs_server": CONTROL_STORE, "raylet": "Ray's node manager"}
_START_ATTEMPTS = 2
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
_REPLICA = "SERVE_REPLICA"
_LOOPBACK = "127.0.0.1"
_ASK_TIMEOUT_S = 2.0

#: Read by Ray and Serve when they are imported, here and in every worker; on every machine of a
#: cluster, too, that is started elsewhere (the chart's containers have them).
ENVIRONMENT = {
    # Replicas fork engines and what tries grammars (deployments.grammar_helper), which have nothing
    # to say by gRPC. Its handlers would use connections that the helper has closed, and abort it.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    # Gateways listen themselves, behind weir's own HAProxy (docs/adr/0020-front-door.md).
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": client_headers.CALLBACK,
    # One event loop in a replica: each hop between threads costs tens of microseconds a chunk.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # How long a stopping gateway stays reachable so that HAProxy learns of it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # What Serve does in its loops costs CPU time on an idle platform too, on the cores that the
    # engines need: its controller's look at all replicas, and the gauges that each process sets.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",
    # A machine that is busy with imports is not broken.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Ray replaces 127.0.0.1 by the machine's address, and then listens on every interface, unless it
# is told to do without clusters. The variable is named after the systems where that is the default.
_LOCAL_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
#: What Ray tells others of itself is of no use on one machine, where weir's own metrics tell more,
#: and costs idle time of the cores that the engines need.
_LOCAL_QUIET = {
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_raylet_report_resources_period_milliseconds": "1000",
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_object_manager_timer_freq_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "1000",
    "RAY_kill_idle_workers_interval_ms": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",
    # Times of each handler of each of Ray's event loops, which nobody reads.
    "RAY_event_stats": "0",
}
#: Ray's workers are nice (15) to all other processes: beside a compiler or a browser an engine
#: would get a thirtieth of a core.
_LOCAL_SHARE = {"RAY_worker_niceness": "0"}


def serving_gateways(controller: Any = None) -> list[Target]:
    """The gateways that serve, as Serve's controller knows them. Asks it, and waits; looks it up
    first, unless its handle is given.

    Raises:
        ray.exceptions.RayError, ValueError: there is no controller now.
    """
    import ray

    if controller is None:
        controller = serve_controller()
    groups = ray.get(controller.get_target_groups.remote(APP), timeout=_ASK_TIMEOUT_S)
    # While no gateway is up, Serve names its own proxy instead.
    return [
        Target(target.name, target.ip, target.port)
        for group in groups
        for target in group.targets
        if target.name.startswith(_REPLICA)
    ]


def serve_controller() -> Any:
    """The handle of Serve's controller; it stays good when the controller is started again.

    Raises:
        ray.exceptions.RayError, ValueError: there is none now.
    """
    import ray

    return ray.get_actor(_CONTROLLER, namespace="serve")


class Cluster:
    """``ray.address: local`` starts a Ray of our own; else the one at the address is joined."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """``folder``: where a local Ray keeps its sockets and logs."""
        self._settings = settings
        self._folder = folder
        self._started = False
        self._node: Any = None
        self._controller: Any = None

    @property
    def address(self) -> str:
        """``host:port`` for other drivers."""
        import ray

        return str(ray.get_runtime_context().gcs_address)

    @property
    def _local(self) -> bool:
        return self._settings.ray.address == "local"

    def prepare_environment(self) -> None:
        """Before Ray is imported; what the user has set wins."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._local:
            # A token of this cluster's own, so that nothing is written into the home directory.
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            os.environ.update(_LOCAL_ENVIRONMENT)
            for name, value in (_LOCAL_QUIET | _LOCAL_SHARE).items():
                os.environ.setdefault(name, value)

    def start(self) -> None:
        """Start Ray, or join it."""
        import ray

        if self._local:
            self._start_node()
        address = self._node.address if self._local else self._settings.ray.address
        ray.init(
            address=address,
            namespace="serve",
            logging_level="warning",
            log_to_driver=False,
            **({"_node_ip_address": _LOOPBACK} if self._local else {}),
        )
        self._started = True

    def _start_node(self) -> None:
        # As ``ray start`` does it, and not ``ray.init``, whose Ray ends with the process that
        # called it: a killed supervisor must not take the replicas with it.
        from ray._private.node import Node
        from ray._private.parameter import RayParams

        settings = self._settings.ray
        params = RayParams(
            node_ip_address=_LOOPBACK,
            num_cpus=settings.num_cpus or max(2, os.cpu_count() or 1),
            include_dashboard=settings.dashboard,
            object_store_memory=settings.object_store_memory_bytes,
            temp_dir=str(self._folder),
            # Nobody reads workers' logs over the network, and no machine is added by Ray.
            include_log_monitor=False,
            no_monitor=True,
        )
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._node = Node(params, head=True, shutdown_at_exit=False, spawn_reaper=False)
                return
            except Exception as error:
                # Ray gives its node 30 s and raises a plain Exception: on a machine busy with
                # something else the second attempt, with the files in memory, gets there.
                if attempt == _START_ATTEMPTS or "timed out" not in str(error):
                    raise

    def pids(self) -> dict[str, int]:
        """Ray's own processes by what they are; empty for a Ray that was joined."""
        return {name: process.pid for name, process in self._processes()}

    def lost(self) -> list[str]:
        """Which of them have ended. Without either, nothing of Ray's can be started any more."""
        return [name for name, process in self._processes() if process.poll() is not None]

    def _processes(self) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        for kind, processes in self._node.all_processes.items() if self._node else ():
            if kind in _NAMED:
                yield _NAMED[kind], processes[0].process

    def gateways(self) -> list[Target]:
        """The gateways that serve, as Serve's controller knows them.

        Raises:
            ray.exceptions.RayError, ValueError: there is no controller now.
        """
        if self._controller is None:
            self._controller = serve_controller()
        try:
            return serving_gateways(self._controller)
        except Exception:
            self._controller = None  # perhaps there is another one
            raise

    def start_serve(self) -> Future[None]:
        """Start Serve in a thread: its proxy takes seconds in which replicas can start already."""
        started: Future[None] = Future()
        threading.Thread(target=self._serve_start, args=(started,), daemon=True).start()
        return started

    def has_controller(self) -> bool:
        """Whether applications can be deployed."""
        with contextlib.suppress(ValueError):
            serve_controller()
            return True
        return False

    def stop(self) -> None:
        """Let the application drain, then stop what was started here."""
        if not self._started:
            return
        import ray
        from ray import serve

        with contextlib.suppress(ray.exceptions.RayError, RuntimeError):
            serve.delete(APP)
            if self._local:
                serve.shutdown()
        ray.shutdown()
        if self._node is not None:
            self._node.kill_all_processes(check_alive=False, allow_graceful=True)

    def _serve_start(self, started: Future[None]) -> None:
        from ray import serve
        from ray.serve.config import HTTPOptions

        # The address is the gateways'; the port is that of Serve's own proxy, which nobody uses.
        options = HTTPOptions(
            host=_LOOPBACK if self._local else "0.0.0.0",
            port=_free_port(),
            request_timeout_s=None,
            keep_alive_timeout_s=120,
        )
        try:
            serve.start(proxy_location="HeadOnly", http_options=options)
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            started.set_exception(error)
        else:
            started.set_result(None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
