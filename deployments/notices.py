"""Notices that a machine is about to be taken away, as a replica on it hears of them.

Formats and addresses, as documented by

* AWS, EC2 User Guide, "Spot Instance interruption notices": ``/latest/meta-data/spot/
  instance-action`` is a 404, or ``{"action": "terminate", "time": "2026-11-28T08:22:00Z"}`` two
  minutes ahead; to be asked with a session token (IMDSv2: ``PUT /latest/api/token``). Asking every
  five seconds is recommended.
* Google, Compute Engine, "Preemption process" of Spot VMs: ``/computeMetadata/v1/instance/
  preempted`` is ``FALSE``, or ``TRUE`` 30 seconds ahead; with ``Metadata-Flavor: Google``.
* Azure, "Scheduled Events": ``/metadata/scheduledevents?api-version=2020-07-01`` has ``Events``,
  of which one with ``EventType: Preempt`` names the machine in ``Resources`` and the time in
  ``NotBefore`` (RFC 1123, or empty once it has begun), 30 seconds ahead; with ``Metadata: true``.
* Kubernetes, API reference of ``Node``: ``spec.taints[].key``, and ``status.conditions[]`` with
  ``status: "True"``. The keys are those of AWS' node termination handler, GKE's graceful node
  termination and Karpenter; the condition is that of AKS' node problem detector.

What cannot be asked is no notice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp

from weir.settings.notices import NoticeSettings

_LOG = logging.getLogger("weir.replica")
_TIMEOUT_S = 2.0
_METADATA = "http://169.254.169.254"
_GOOGLE = "http://metadata.google.internal"
_KUBERNETES = "https://kubernetes.default.svc"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
#: The node's name, which a pod has by the downward API (``spec.nodeName``).
NODE_VARIABLE = "WEIR_NODE_NAME"
_TOKEN_S = 300
_USUAL_S = {"aws": 120.0, "gcp": 30.0, "azure": 30.0, "kubernetes": 30.0, "file": 30.0}


@dataclass(frozen=True, slots=True)
class Notice:
    """``at_s``: when the machine is taken away, since the epoch; ``reason`` is for people."""

    at_s: float
    reason: str


def aws_notice(body: str, now_s: float) -> Notice | None:
    """Of ``spot/instance-action``.

    Raises:
        ValueError: it is of another form.
    """
    told = json.loads(body)
    if not isinstance(told, dict) or told.get("action") not in ("terminate", "stop", "hibernate"):
        return None
    at_s = _moment_s(told.get("time"), now_s + _USUAL_S["aws"])
    return Notice(at_s, f"spot instance: {told['action']}")


def gcp_notice(body: str, now_s: float) -> Notice | None:
    """Of ``instance/preempted``."""
    if body.strip().upper() != "TRUE":
        return None
    return Notice(now_s + _USUAL_S["gcp"], "spot VM: preempted")


def azure_notice(body: str, machine: str, now_s: float) -> Notice | None:
    """Of ``scheduledevents``; ``machine``: this one's name there (empty: any).

    Raises:
        ValueError: it is of another form.
    """
    told = json.loads(body)
    events = told.get("Events") if isinstance(told, dict) else None
    for event in events or ():
        if event.get("EventType") != "Preempt":
            continue
        if machine and machine not in (event.get("Resources") or ()):
            continue
        before = event.get("NotBefore")
        # Once it has begun there is no time any more.
        at_s = parsedate_to_datetime(before).timestamp() if before else now_s
        return Notice(at_s, "spot VM: Preempt")
    return None


def node_notice(
    body: str, taints: Collection[str], conditions: Collection[str], now_s: float
) -> Notice | None:
    """Of a Kubernetes ``Node``.

    Raises:
        ValueError: it is of another form.
    """
    node = json.loads(body)
    at_s = now_s + _USUAL_S["kubernetes"]
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("key") in taints:
            return Notice(at_s, f"taint {taint['key']}")
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("type") in conditions and condition.get("status") == "True":
            return Notice(at_s, f"condition {condition['type']}")
    return None


def file_notice(body: str, now_s: float) -> Notice:
    """Of a file that is there: empty, or with the time, or with the seconds left."""
    text = body.strip()
    try:
        at_s = now_s + float(text)
    except ValueError:
        at_s = _moment_s(text, now_s + _USUAL_S["file"])
    return Notice(at_s, "a file says so")


def _moment_s(text: Any, otherwise_s: float) -> float:
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return otherwise_s
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _text_of(file: Path) -> str | None:
    return file.read_text() if file.is_file() else None


Ask = Callable[[], Awaitable[Notice | None]]


class NoticeWatch:
    """Asks for a notice until there is one, and then calls ``told`` once."""

    def __init__(
        self,
        settings: NoticeSettings,
        told: Callable[[Notice], None],
        wall_clock: Callable[[], float] = time.time,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._told = told
        self._wall_clock = wall_clock
        self._environment = os.environ if environment is None else environment
        self._session: aiohttp.ClientSession | None = None
        self._token, self._token_until_s = "", 0.0
        self._machine: str | None = None
        asks: dict[str, Ask] = {
            "aws": self._aws,
            "gcp": self._gcp,
            "azure": self._azure,
            "kubernetes": self._kubernetes,
            "file": self._file,
        }
        self._ask = asks[settings.source]

    async def run(self) -> None:
        """Until there is a notice, or cancelled."""
        failing = False
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), trust_env=False
        ) as self._session:
            while True:
                try:
                    notice = await self._ask()
                    failing = False
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                    notice = None
                    if not failing:
                        why = {"source": self._settings.source, "reason": str(error)}
                        _LOG.warning("notices of interruption cannot be asked for", extra=why)
                    failing = True
                if notice is not None:
                    left_s = round(notice.at_s - self._wall_clock(), 1)
                    told = {"left_s": left_s, "reason": notice.reason}
                    _LOG.warning("this machine is about to be taken away", extra=told)
                    self._told(notice)
                    return
                await asyncio.sleep(self._settings.period_s)

    async def _aws(self) -> Notice | None:
        base, now_s = self._settings.url or _METADATA, self._wall_clock()
        if now_s >= self._token_until_s:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}
            self._token = await self._fetch("PUT", f"{base}/latest/api/token", headers) or ""
            self._token_until_s = now_s + _TOKEN_S / 2
        headers = {"X-aws-ec2-metadata-token": self._token}
        body = await self._fetch("GET", f"{base}/latest/meta-data/spot/instance-action", headers)
        return None if body is None else aws_notice(body, now_s)

    async def _gcp(self) -> Notice | None:
        base = self._settings.url or _GOOGLE
        path = "/computeMetadata/v1/instance/preempted"
        body = await self._fetch("GET", base + path, {"Metadata-Flavor": "Google"})
        return None if body is None else gcp_notice(body, self._wall_clock())

    async def _azure(self) -> Notice | None:
        base, headers = self._settings.url or _METADATA, {"Metadata": "true"}
        if self._machine is None:
            path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            self._machine = (await self._fetch("GET", base + path, headers) or "").strip()
        path = "/metadata/scheduledevents?api-version=2020-07-01"
        body = await self._fetch("GET", base + path, headers)
        return None if body is None else azure_notice(body, self._machine, self._wall_clock())

    async def _kubernetes(self) -> Notice | None:
        name = self._environment.get(NODE_VARIABLE)
        if not name:
            raise ValueError(f"{NODE_VARIABLE} is not set")
        settings, headers = self._settings, {}
        base, tls = settings.url or _KUBERNETES, None
        if token := _text_of(_ACCOUNT / "token"):
            headers["Authorization"] = f"Bearer {token}"
        if base.startswith("https:"):
            tls = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
        body = await self._fetch("GET", f"{base}/api/v1/nodes/{name}", headers, tls)
        if body is None:
            return None
        return node_notice(body, settings.taints, settings.conditions, self._wall_clock())

    async def _file(self) -> Notice | None:
        text = _text_of(Path(self._settings.file or ""))
        return None if text is None else file_notice(text, self._wall_clock())

    async def _fetch(
        self, method: str, url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None = None
    ) -> str | None:
        """The body; None for a 404.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: there is no answer, or an error.
        """
        assert self._session is not None
        asked = self._session.request(method, url, headers=headers, ssl=tls or True)
        async with asked as answer:
            if answer.status == 404:
                return None
            answer.raise_for_status()
            return await answer.text()
