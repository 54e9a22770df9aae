"""A policy in a file of its own: ``policy`` and ``params``, as in the section ``autoscaling``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import weir.autoscaling.policies  # noqa: F401 - registers them
from weir.autoscaling.registry import POLICIES, AutoscalingPolicy
from weir.errors import ConfigError
from weir.settings.load import read_tree

_KEYS = {"policy", "params"}


def read_policy(path: Path) -> tuple[str, AutoscalingPolicy]:
    """The policy's name, and the policy. A whole settings file is read, too: its section
    ``autoscaling``.

    Raises:
        ConfigError: the file cannot be read, or the policy or a parameter is not known.
    """
    tree: dict[str, Any] = read_tree(path)
    if isinstance(inner := tree.get("autoscaling"), dict):
        tree = {key: value for key, value in inner.items() if key in _KEYS}
    if unknown := sorted(set(tree) - _KEYS):
        raise ConfigError(f"{path}: {unknown[0]}: unknown key; expected policy and params")
    name, params = tree.get("policy", "weir"), tree.get("params") or {}
    if not isinstance(name, str) or not isinstance(params, dict):
        raise ConfigError(f"{path}: policy is a name, and params a mapping")
    return name, POLICIES.build(name, params)


def policy_schema() -> dict[str, Any]:
    """JSON schema (2020-12) of such a file: one alternative for each policy."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An autoscaling policy of weir",
        "oneOf": [_one(name) for name in POLICIES.names()],
    }


def _one(name: str) -> dict[str, Any]:
    params = {**POLICIES.adapter(name).json_schema(), "additionalProperties": False}
    properties = {"policy": {"const": name}, "params": params}
    required = [] if name == "weir" else ["policy"]
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
