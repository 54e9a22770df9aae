"""Feast: the only place that imports it (3 to 4 s, which is why nothing on the request path does).

What the features are is declared without Feast in :mod:`features.desk_data.views`.
"""

import features.repo.feast_import  # noqa: F401  # isort: skip - before all else that imports Feast
from features.repo.config import store_config
from features.repo.definitions import PROJECT, definitions
from features.repo.repository import FeatureRepository, Held, PushError, ViewHeld

__all__ = [
    "PROJECT",
    "FeatureRepository",
    "Held",
    "PushError",
    "ViewHeld",
    "definitions",
    "store_config",
]
