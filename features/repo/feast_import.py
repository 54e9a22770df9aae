"""Importing Feast without what it does to a process's metrics.

Feast 0.67 sets Prometheus' multi-process variables while it is imported. Whoever imports
prometheus_client afterwards, child processes included, would keep metrics in Feast's folder and
mix them with each other's. So prometheus_client is imported before, and the variables are taken
out again. The package imports it before any of its modules that import Feast.
"""

from __future__ import annotations

import os

import prometheus_client  # noqa: F401 - decides at its import how metrics are kept

_NAMES = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
_before = {name: os.environ[name] for name in _NAMES if name in os.environ}

import feast  # noqa: E402, F401

for _name in _NAMES:
    os.environ.pop(_name, None)
os.environ.update(_before)
