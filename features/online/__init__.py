"""Online reads: Feast's Redis format, read directly, in batches and within a time budget."""

from features.online.address import (
    ClusterAddress,
    SentinelAddress,
    StoreAddress,
    StoreSecurity,
    parse_address,
)
from features.online.cache import CacheSettings
from features.online.cluster import ClusterLink
from features.online.link import Patience, StoreLink, StoreState
from features.online.reader import FeatureReader, Lookup, ReadCounts
from features.online.service import FeatureRow, FeatureSpec, ServicePlan, ServiceSpec, ViewSpec

__all__ = [
    "CacheSettings",
    "ClusterAddress",
    "ClusterLink",
    "FeatureReader",
    "FeatureRow",
    "FeatureSpec",
    "Lookup",
    "Patience",
    "ReadCounts",
    "SentinelAddress",
    "ServicePlan",
    "ServiceSpec",
    "StoreAddress",
    "StoreLink",
    "StoreSecurity",
    "StoreState",
    "ViewSpec",
    "parse_address",
]
