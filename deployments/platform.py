"""The supervisor: starts Redis, Ray, Serve and weir's applications, and stops them again.

``python -m deployments.platform --settings FILE --state DIR`` runs until SIGTERM. It owns every
process that it starts, directly or through Ray; when it ends, they have ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil

from deployments.applying import SettingsInForce, require_same_base
from deployments.batches.place import FILES_VARIABLE, files_url
from deployments.checking import checked
from deployments.cluster import Cluster
from deployments.control_server import ADDRESS_VARIABLE, ControlServer
from deployments.guard import Guard
from deployments.haproxy import FrontDoor
from deployments.names import APP
from deployments.pools import pools_of, runs
from deployments.progress import Progress, State
from deployments.ray_watch import RayLost, RayWatch, end_family
from deployments.redis_server import RedisServer
from weir.errors import ConfigError, WeirError
from weir.run_folder import make_run_folder, remove_folder
from weir.settings import ModelSettings, Settings, parse_settings, read_tree
from weir.settings.ledger import FOLDER_VARIABLE

if TYPE_CHECKING:
    from deployments.tenants import TenantsOfSettings

_POLL_S = 0.2
#: What was lost, where this process starts everything for the second time.
_LOST = "WEIR_STARTED_AGAIN_AFTER"
#: What still answers when Ray is lost is given so long for its last answers.
_LAST_ANSWERS_S = 10.0
_ABANDON_S = 0.2


class Stopped(Exception):  # noqa: N818 - an event, not an error
    """SIGTERM arrived while starting."""


class Platform:
    """Everything this process started, in order, and how to undo it."""

    def __init__(self, settings: Settings, settings_file: Path, state: Path) -> None:
        self._settings = settings
        self._settings_file = settings_file
        self._state = state
        self._progress = Progress(state / "progress.jsonl", time.monotonic())
        self._lost = os.environ.pop(_LOST, "")
        if self._lost:
            self._progress.tell("again", "progress", _again(self._lost))
        self._redis: RedisServer | None = None
        self._deployer: subprocess.Popen[str] | None = None
        self._folder = make_run_folder(state)
        self._in_force = SettingsInForce(settings_file, self._folder)
        self._cluster = Cluster(settings, self._folder)
        self._ray = RayWatch(self._cluster.lost)
        self._front = FrontDoor(
            settings.server,
            self._folder / "haproxy",
            one_active=settings.gateway.replicas == 1,
        )
        self._control = ControlServer(settings.server.admin, settings_file, state, self._folder)
        self._tenants: TenantsOfSettings | None = None
        self._guard = Guard(self._cluster.gateways, self._front, self._restarted)
        self._ready = False
        self._started_at = time.time()
        self.stop_requested = threading.Event()
        self.apply_requested = threading.Event()

    @property
    def url(self) -> str:
        server = self._settings.server
        host = "127.0.0.1" if server.host == "0.0.0.0" else server.host
        return f"http://{host}:{server.port}"

    def start(self) -> None:
        """Bring everything up; returns when a first token has been generated.

        Raises:
            WeirError: something cannot start; what was started is still to be stopped.
            Stopped: SIGTERM arrived first.
        """
        checked(read_tree(self._settings_file), str(self._settings_file))
        self._cluster.prepare_environment()
        folder = self._settings.ledger.folder or str(self._state.absolute() / "ledger")
        os.environ.setdefault(FOLDER_VARIABLE, folder)
        self._keep_temporary_files_together()
        self._in_force.begin(self._in_force.copy())
        self._start_deployer(self._in_force.file)
        self._tell_where_control_is()
        self._start_tenants()
        self._start_redis()
        self._front.start()
        self._start_ray()
        serve_start = self._start_serve()
        self._progress.tell("gateway", "start", "deploying the application")
        self._deploy()
        self._start_control()
        self._guard.start()
        self._await_serve(serve_start)
        self._await_replicas()
        self._await_ready()
        self._await_control()
        self._ready = True
        self._write_description()
        if self._lost:
            self._progress.tell("again", "done")
        self._progress.tell("ready", "done", self.url)

    def run(self) -> None:
        """Until told to stop; on SIGHUP, apply the settings file again.

        Raises:
            RayLost: everything has to be started again.
        """
        while not self.stop_requested.wait(_POLL_S):
            self._ray.look()
            if self.apply_requested.is_set():
                self.apply_requested.clear()
                self._apply()
            if self._tenants is not None:
                self._tenants.try_again()

    def _apply(self) -> None:
        """The settings file takes effect whole, or all stays as it was."""
        self._progress.tell("apply", "start", str(self._settings_file))
        before, deployed = self._settings, False
        try:
            settings = checked(read_tree(self._settings_file), str(self._settings_file))
            require_same_base(self._settings, settings)
            wanted = self._in_force.copy()
            if self._tenants is not None:
                self._tenants.put(settings.tenants)
            self._start_deployer(wanted)
            deployed = True
            self._settings = settings
            self._await_application()
            self._control.restart()
            self._await_control()
            self._write_description()
            self._in_force.begin(wanted)
        except Stopped:
            return
        except (WeirError, OSError) as error:
            told = _told(error)
            with contextlib.suppress(Stopped):
                self._take_back(before, deployed)
            self._progress.tell("apply", "fail", error=told)
            return
        self._progress.tell("apply", "done", self.url)

    def _take_back(self, before: Settings, deployed: bool) -> None:
        """What was in force before is in force again. Serve replaces the replicas of a deployment
        one after the other, so that some may be gone for new ones that do not come up."""
        self._settings = before
        with contextlib.suppress(OSError):
            self._in_force.put_back()
        if self._tenants is not None:
            with contextlib.suppress(ConfigError):
                self._tenants.put(before.tenants)
        if not deployed:
            return
        self._progress.tell("apply", "progress", "it failed; bringing back what was there before")
        try:
            self._end_deployer()
            self._start_deployer(self._in_force.file)
            self._await_application()
            self._control.restart()
        except (WeirError, OSError) as error:
            told = f"what was there before does not come back: {_told(error)}"
            self._progress.tell("apply", "progress", error=told)

    def _await_application(self) -> None:
        """Have the deployer that was started do its work, and wait for the replicas."""
        self._deploy()
        self._await_deployer()
        self._await_replicas()

    def stop(self) -> None:
        """Undo everything, last first. Streams in flight finish within the drain timeout."""
        self._end_deployer()
        self._guard.stop()
        self._front.close()  # new requests are refused while streams in flight end
        self._cluster.stop()
        self._front.stop()
        self._control.stop()
        if self._redis is not None:
            self._redis.stop()
        if self._tenants is not None:
            self._tenants.close()
        with contextlib.suppress(FileNotFoundError):
            (self._state / "platform.json").unlink()

    def abandon(self, lost: str) -> None:
        """Have nothing left of what was started, as after a crash; answers under way may end first,
        for a moment."""
        with contextlib.suppress(FileNotFoundError):
            (self._state / "platform.json").unlink()
        self._progress.tell("again", "start", _again(lost))
        self._end_deployer()
        self._guard.stop(_ABANDON_S)
        self._front.finish(_LAST_ANSWERS_S)
        end_family()

    def remove_folder(self) -> None:
        """Last of all: nothing of the platform may be alive any more."""
        remove_folder(self._folder)

    def fail(self, error: str) -> None:
        """Tell whoever waits that it will not come up."""
        self._progress.tell("ready", "fail", error=error)

    def _keep_temporary_files_together(self) -> None:
        # Whatever is started from here on puts its sockets and files where stopping finds them.
        os.environ["TMPDIR"] = str(self._folder)
        tempfile.tempdir = None

    def _restarted(self, part: str) -> None:
        """Called by the guard, in its thread."""
        self._progress.tell("guard", "done", f"{part} had ended and was started again")
        if self._ready:
            self._write_description()

    def _start_deployer(self, settings_file: Path) -> None:
        # First of all: it spends its first seconds importing vLLM, while Ray starts.
        command = [
            sys.executable,
            "-m",
            "deployments.deploy",
            "--settings",
            str(settings_file),
        ]
        self._deployer = subprocess.Popen(command, stdin=subprocess.PIPE, text=True)

    def _end_deployer(self) -> None:
        if self._deployer is not None and self._deployer.poll() is None:
            self._deployer.terminate()

    def _start_tenants(self) -> None:
        # Imported here: the database's libraries take a third of a second, in which the deployer
        # imports what takes longer.
        from deployments.tenants import TenantsOfSettings

        files = files_url(self._settings.files, os.environ, self._state)
        os.environ[FILES_VARIABLE] = files
        self._tenants = TenantsOfSettings(self._settings, self._state)
        self._tenants.start()

    def _start_redis(self) -> None:
        if self._settings.redis.mode != "embedded":
            return
        self._progress.tell("redis", "start", "embedded redis-server")
        redis = RedisServer(self._state / "redis", self._settings.redis.port, outlives=True)
        redis.start()
        self._redis = redis
        self._guard.watch("Redis", redis)
        self._progress.tell("redis", "done", redis.url)

    def _tell_where_control_is(self) -> None:
        if self._control.address is not None:
            os.environ[ADDRESS_VARIABLE] = self._control.address

    def _start_control(self) -> None:
        # Once everything else is under way: no request of a model needs it.
        self._progress.tell("control", "start", "admin API")
        self._control.start()
        self._guard.watch("control process", self._control)

    def _await_control(self) -> None:
        while not self._control.up():
            self._pause()
        self._progress.tell("control", "done", f"{self.url}/admin/v1")

    def _start_ray(self) -> None:
        self._progress.tell("ray", "start", "Ray cluster")
        self._cluster.start()
        _stop_on_signals(self)  # ray.init put its own handlers there
        self._progress.tell("ray", "done", self._cluster.address)

    def _start_serve(self) -> Future[None]:
        self._progress.tell("serve", "start", "Serve controller")
        started = self._cluster.start_serve()
        while not (started.done() or self._cluster.has_controller()):
            self._pause()
        return started

    def _await_serve(self, started: Future[None]) -> None:
        while not started.done():
            self._pause()
        started.result()
        self._progress.tell("serve", "done")

    def _deploy(self) -> None:
        assert self._deployer is not None
        assert self._deployer.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._deployer.stdin.write(self._cluster.address + "\n")
            self._deployer.stdin.close()

    def _await_deployer(self) -> None:
        while self._deployer is not None and self._deployer.poll() is None:
            self._pause()

    def _await_replicas(self) -> None:
        from ray import serve

        waiting = {p.deployment: p for m in self._settings.models for p in pools_of(m)}
        told: dict[str, str] = {}
        while waiting:
            self._pause()
            app = serve.status().applications.get(APP)
            if app is None:
                continue
            if app.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise ConfigError(f"the platform does not come up: {app.message}")
            for name, pool in list(waiting.items()):
                deployment = app.deployments.get(name)
                states = deployment.replica_states if deployment else {}
                up, total = states.get("RUNNING", 0), sum(states.values())
                least, most = _replica_bounds(pool.model)
                done = deployment is not None and up == total and least <= up <= most
                leaving = f", {total - up} starting or stopping" if total > up else ""
                detail = f"{up} of {least} replicas running{leaving}"
                if done or told.get(name) != detail:
                    told[name] = detail
                    state: State = "done" if done else "progress"
                    self._progress.tell(f"model:{pool.label}", state, detail)
                if done:
                    del waiting[name]

    def _await_ready(self) -> None:
        self._progress.tell("gateway", "progress", "waiting for /ready")
        with httpx.Client(base_url=self.url, timeout=5.0) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get("/ready").status_code == 200:
                        break
                self._pause()
        self._progress.tell("gateway", "done", self.url)

    def _pause(self) -> None:
        if self.stop_requested.wait(_POLL_S):
            raise Stopped
        code = self._deployer.poll() if self._deployer else 0
        if code not in (None, 0):
            raise ConfigError(f"deploying failed (exit code {code}); the log has the reason")

    def _write_description(self) -> None:
        process = psutil.Process()
        description: dict[str, Any] = {
            "pid": process.pid,
            "create_time": process.create_time(),
            "url": self.url,
            "models": [m.name for m in self._settings.models],
            "started_at": self._started_at,
            "seconds_to_ready": round(self._progress.seconds, 2),
            "ray_address": self._cluster.address,
            "redis_url": self._redis.url if self._redis else None,
            "parts": self._parts(),
        }
        fresh = self._state / f".platform.json.{threading.get_ident()}"
        fresh.write_text(json.dumps(description, indent=2))
        fresh.replace(self._state / "platform.json")

    def _parts(self) -> dict[str, dict[str, float]]:
        """The processes that the platform cannot do without, for ``weir status`` to look at."""
        pids = {
            "HAProxy": self._front.pid,
            "control process": self._control.pid,
            **self._cluster.pids(),
        }
        if self._redis is not None:
            pids["Redis"] = self._redis.pid
        parts = {}
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                if pid is not None:
                    parts[name] = {"pid": pid, "create_time": psutil.Process(pid).create_time()}
        return parts


def main(argv: list[str] | None = None) -> int:
    """Run until told to stop; the exit code is 0 after a clean stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True)
    arguments = parser.parse_args(argv)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # it doubles every start (docs/adr/0005)
    environment = dict(os.environ)
    settings = parse_settings(read_tree(arguments.settings), str(arguments.settings))
    arguments.state.mkdir(parents=True, exist_ok=True)
    platform = Platform(settings, arguments.settings, arguments.state)
    _stop_on_signals(platform)
    code = 0
    try:
        platform.start()
        platform.run()
    except Stopped:
        pass
    except RayLost as lost:
        platform.abandon(str(lost))
        if not platform.stop_requested.is_set():
            platform.remove_folder()
            # The same process, for whoever has written down its number, without what is Ray's.
            os.execve(sys.executable, sys.orig_argv, environment | {_LOST: str(lost)})
    except Exception as error:  # noqa: BLE001 - the process's edge: told, undone, non-zero
        platform.fail(error.message if isinstance(error, WeirError) else repr(error))
        code = 1
    finally:
        platform.stop()
        platform.remove_folder()
    return code


def _again(lost: str) -> str:
    return f"{lost} had ended, so everything is started again"


def _told(error: WeirError | OSError) -> str:
    return error.message if isinstance(error, WeirError) else str(error)


def _stop_on_signals(platform: Platform) -> None:
    def on_signal(*_: object) -> None:
        if platform.stop_requested.is_set():  # the second one hurries
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            os._exit(1)
        platform.stop_requested.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGHUP, lambda *_: platform.apply_requested.set())


def _replica_bounds(model: ModelSettings) -> tuple[int, int]:
    scaling = model.autoscaling
    if scaling is None or not runs(model):
        return model.replicas, model.replicas
    return scaling.min_replicas, scaling.max_replicas


if __name__ == "__main__":
    sys.exit(main())
