"""The running platform's gateway, as the command line sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from weir.cli import process
from weir.cli.exits import CommandError, ExitCode
from weir.cli.state import PlatformRecord, State


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica. ``kv_use``, ``mfu``, ``mbu`` in [0, 1]; None where the replica does not say.
    ``kv_memory_use``, ``kv_disk_use``: of its KV tiers, None where it has none. ``role`` is empty
    where its model has no pools; ``pool_role`` is what its pool is for, and ``role_until`` (seconds
    since the epoch) when that is its role again."""

    replica_id: str
    state: str
    address: str
    running: int | None
    waiting: int | None
    kv_use: float | None
    outstanding_tokens: int | None
    stats_age_s: float | None
    role: str = ""
    mfu: float | None = None
    mbu: float | None = None
    kv_memory_use: float | None = None
    kv_disk_use: float | None = None
    pool_role: str = ""
    changes_role: bool = False
    role_until: float | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment of an application, with its replicas. ``model`` is empty where it serves
    none, ``pool`` where its model has no pools."""

    name: str
    app: str
    status: str
    message: str
    replicas: tuple[Replica, ...]
    model: str = ""
    pool: str = ""


def parse_deployments(body: dict[str, Any]) -> tuple[Deployment, ...]:
    """The deployments of ``/weir/status``.

    Raises:
        CommandError: the answer is not what this version of weir sends.
    """
    try:
        return tuple(
            Deployment(
                name=str(d["name"]),
                app=str(d.get("app") or ""),
                status=str(d["status"]),
                message=str(d.get("message") or ""),
                replicas=tuple(_replica(r) for r in d.get("replicas") or ()),
                model=str(d.get("model") or ""),
                pool=str(d.get("pool") or ""),
            )
            for d in body["deployments"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CommandError(f"the gateway's status cannot be read: {error!r}") from None


def _replica(held: dict[str, Any]) -> Replica:
    def number(name: str) -> float | None:
        return None if held.get(name) is None else float(held[name])

    def count(name: str) -> int | None:
        return None if held.get(name) is None else int(held[name])

    return Replica(
        replica_id=str(held["replica_id"]),
        state=str(held["state"]),
        address=str(held.get("address") or ""),
        running=count("running"),
        waiting=count("waiting"),
        kv_use=number("kv_use"),
        outstanding_tokens=count("outstanding_tokens"),
        stats_age_s=number("stats_age_s"),
        role=str(held.get("role") or ""),
        mfu=number("mfu"),
        mbu=number("mbu"),
        kv_memory_use=number("kv_memory_use"),
        kv_disk_use=number("kv_disk_use"),
        pool_role=str(held.get("pool_role") or ""),
        changes_role=bool(held.get("changes_role")),
        role_until=number("role_until"),
    )


def require_running(state: State) -> PlatformRecord:
    """The running platform.

    Raises:
        CommandError: there is none (NOT_RUNNING), or it is still starting.
    """
    if process.find(state.supervisor()) is None:
        raise CommandError("weir is not running", ExitCode.NOT_RUNNING, hint="start it: weir up")
    platform = state.platform()
    if platform is None:
        raise CommandError(
            "weir is starting and not ready yet", ExitCode.NOT_RUNNING, hint="wait for it: weir up"
        )
    return platform


def fetch_status(state: State, platform: PlatformRecord, timeout_s: float = 5.0) -> dict[str, Any]:
    """The body of ``GET /weir/status``.

    Raises:
        CommandError: the gateway does not answer, or not with its status.
    """
    token, hint = state.secrets().internal_token, f"log: {state.log_file}"
    return ask_gateway(platform.url, "/weir/status", token, hint, timeout_s)


def ask_gateway(
    url: str, path: str, token: str, hint: str | None = None, timeout_s: float = 5.0
) -> dict[str, Any]:
    """The object that a page of a gateway answers with. ``token``: the platform's own; ``hint``:
    where to look when there is none.

    Raises:
        CommandError: the gateway does not answer, or not with an object.
    """
    headers = {"authorization": f"Bearer {token}"}
    try:
        # Straight to the machine itself: a proxy of the environment is not meant for this.
        with httpx.Client(timeout=timeout_s, trust_env=False) as client:
            answer = client.get(f"{url}{path}", headers=headers)
            body = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError) as error:
        raise CommandError(f"the gateway at {url} does not answer: {error}", hint=hint) from None
    if not isinstance(body, dict):
        raise CommandError(
            f"the gateway at {url} answers {answer.status_code}: {answer.text[:200]}", hint=hint
        )
    return body
