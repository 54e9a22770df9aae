"""One settings tree, read from YAML, validated before anything starts."""

from weir.settings.engine import EngineSettings
from weir.settings.load import (
    Problem,
    SettingsError,
    load_settings,
    parse_settings,
    profile_names,
    read_tree,
)
from weir.settings.money import PriceSettings
from weir.settings.tenants import TenantFields, TenantSettings
from weir.settings.tree import (
    ModelSettings,
    RoutingSettings,
    Settings,
)

__all__ = [
    "EngineSettings",
    "ModelSettings",
    "PriceSettings",
    "Problem",
    "RoutingSettings",
    "Settings",
    "SettingsError",
    "TenantFields",
    "TenantSettings",
    "load_settings",
    "parse_settings",
    "profile_names",
    "read_tree",
]
