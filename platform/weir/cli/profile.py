"""``weir profile``: where a live replica's time goes, as a flame graph or a torch trace."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from weir.cli.exits import CommandError, ExitCode
from weir.cli.gateway import Replica, fetch_status, parse_deployments, require_running
from weir.cli.state import State
from weir.flame import draw_flame_graph, largest_costs

_GRACE_S = 60.0


@dataclass(frozen=True, slots=True)
class ProfileOptions:
    """``replica``: its id, or how that begins. ``out``: where the file goes; None: here."""

    replica: str
    seconds: float
    torch: bool
    out: Path | None


def profile(options: ProfileOptions, state: State) -> None:
    """Take it, write the file and name the three largest costs.

    Raises:
        CommandError: there is no such replica, or it cannot be profiled.
    """
    replica = _find(options.replica, state)
    answer = _ask(replica, options, state)
    if options.torch:
        costs = [(float(c["share"]), str(c["function"])) for c in answer["costs"]]
        written = _keep_traces([Path(file) for file in answer["files"]], options.out)
    else:
        processes: dict[str, str] = answer["processes"]
        title = f"{replica.replica_id}, {options.seconds:g} s"
        file = options.out or Path(f"flame-{replica.replica_id}.svg")
        file.write_text(draw_flame_graph(processes, title))
        written = str(file)
        costs = [(c.share, f"{c.process}: {c.function}") for c in largest_costs(processes)]
    print(written)
    if not costs:
        print("The replica did nothing in that time.")
    for number, (share, function) in enumerate(costs, 1):
        print(f"{number}. {share:.0%} of the time in {function}")


def _find(wanted: str, state: State) -> Replica:
    body = fetch_status(state, require_running(state))
    known = [
        replica
        for deployment in parse_deployments(body)
        for replica in deployment.replicas
        if replica.address and replica.state == "RUNNING"
    ]
    exact = [replica for replica in known if replica.replica_id == wanted]
    found = exact or [replica for replica in known if replica.replica_id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(replica.replica_id for replica in known) or "none that runs"
    problem = "several replicas begin like" if found else "there is no replica"
    raise CommandError(f"{problem} {wanted}", ExitCode.USAGE, hint=f"there are: {names}")


def _ask(replica: Replica, options: ProfileOptions, state: State) -> dict[str, Any]:
    headers = {"x-weir-token": state.secrets().internal_token}
    kind = "torch" if options.torch else "flame"
    url = f"http://{replica.address}/weir/profile"
    try:
        with httpx.Client(timeout=options.seconds + _GRACE_S, trust_env=False) as client:
            params = {"seconds": str(options.seconds), "kind": kind}
            response = client.post(url, params=params, headers=headers)
            body = response.json()
    except httpx.HTTPError as error:
        raise CommandError(f"the replica at {replica.address} does not answer: {error}") from None
    except json.JSONDecodeError:
        raise CommandError(f"this replica cannot be profiled ({response.text.strip()})") from None
    if response.status_code != 200:
        raise CommandError(str(body.get("error") or body))
    return dict(body)


def _keep_traces(files: list[Path], out: Path | None) -> str:
    """Copies the engine's trace, the largest, to ``out``; else they stay where vLLM put them."""
    if out is None or not files[0].is_file():
        return ", ".join(map(str, files))
    shutil.copyfile(max(files, key=lambda file: file.stat().st_size), out)
    return str(out)
