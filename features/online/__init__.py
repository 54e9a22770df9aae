"""Online reads: Feast's Redis format, read directly, in batches and within a time budget."""

from features.online.cache import CacheSettings
from features.online.connection import StoreAddress
from features.online.link import Patience, StoreLink, StoreState
from features.online.reader import FeatureReader, Lookup, ReadCounts
from features.online.service import FeatureRow, FeatureSpec, ServicePlan, ServiceSpec, ViewSpec

__all__ = [
    "CacheSettings",
    "FeatureReader",
    "FeatureRow",
    "FeatureSpec",
    "Lookup",
    "Patience",
    "ReadCounts",
    "ServicePlan",
    "ServiceSpec",
    "StoreAddress",
    "StoreLink",
    "StoreState",
    "ViewSpec",
]
