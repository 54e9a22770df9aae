"""One settings tree, read from YAML, validated before anything starts."""

from weir.settings.admission import AdmissionSettings, ClassSettings
from weir.settings.engine import EngineSettings
from weir.settings.examine import Problem
from weir.settings.load import (
    SettingsError,
    load_settings,
    parse_settings,
    profile_names,
    read_tree,
)
from weir.settings.money import PriceSettings
from weir.settings.routing import RoutingSettings
from weir.settings.tenants import TenantFields, TenantSettings
from weir.settings.tree import (
    ModelSettings,
    Settings,
)

__all__ = [
    "AdmissionSettings",
    "ClassSettings",
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
