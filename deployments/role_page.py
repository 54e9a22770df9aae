"""Where a replica is told to have another role for a while."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, get_args
from urllib.parse import parse_qs

from deployments.listener import answer
from deployments.roles import RoleKeeper
from router.disaggregation.roles import RoleRefusedError
from weir.settings.pools import Role

PATH = "/weir/role"


class RolePage:
    """An ASGI application: ``POST /weir/role?role=prefill&for_s=600``."""

    def __init__(self, roles: RoleKeeper) -> None:
        self._roles = roles

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        asked = {name: given[0] for name, given in parse_qs(scope["query_string"].decode()).items()}
        now_s = asyncio.get_running_loop().time()
        body: dict[str, str]
        try:
            for_s = float(asked["for_s"]) if "for_s" in asked else None
            role = next(r for r in get_args(Role) if r == asked.get("role"))
            self._roles.change(role, now_s, for_s, time.time())
            status, body = 200, {"role": self._roles.role(now_s)}
        except RoleRefusedError as refused:
            status, body = 409, {"error": str(refused)}
        except (StopIteration, ValueError):
            status, body = 400, {"error": "role is mixed, prefill or decode; for_s a number"}
        await answer(send, status, json.dumps(body).encode(), b"application/json")
