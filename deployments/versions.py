"""When Serve may leave a replica alone.

Serve restarts the replicas of a deployment whose version has changed, and makes a new version up
at every deploy unless it is given one: each ``weir apply`` would restart every replica of every
model. A version here is a digest of what a replica is made from. How many there are is no part of
that, so scaling one deployment leaves all others, and its own replicas that stay, as they are.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from weir import __version__
from weir.settings import ModelSettings, Settings

_COUNTS = {"replicas", "autoscaling"}


def gateway_version(view: Settings) -> str:
    """``view``: the settings that gateways are given."""
    return _digest(view.model_dump(mode="json"))


def model_version(model: ModelSettings, settings: Settings, sources: list[str]) -> str:
    """``sources``: where the files of the model, and of its draft, are; new files in the same
    folder are a new version."""
    tree = model.model_dump(mode="json", exclude=_COUNTS)
    return _digest(
        tree, settings.log.model_dump(mode="json"), [[each, _written(each)] for each in sources]
    )


def _written(source: str) -> float:
    folder = Path(source)
    if not folder.is_dir():
        return 0.0
    return max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)


def _digest(*parts: Any) -> str:
    text = json.dumps([__version__, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
