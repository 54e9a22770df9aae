"""``python -m deployments.levers.child NAME MODEL DRAFT RUNS``: tries one, prints its outcome."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from deployments.levers.engine import Bench
from deployments.levers.registry import levers

MARK = "LEVER "


def main() -> None:
    """The last line of standard output is the outcome; a lever that breaks ends in a traceback."""
    name, model, draft, runs = sys.argv[1:5]
    outcome = levers()[name].run(Bench(model, draft, int(runs)))
    print(MARK + json.dumps(asdict(outcome)), flush=True)
    # vLLM's own threads must not hold the process.
    os._exit(0)


if __name__ == "__main__":
    main()
