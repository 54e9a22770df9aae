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
from weir.settings.routing import RoutingSettings
from weir.settings.tree import (
    ModelSettings,
    PriceSettings,
    Settings,
    TenantSettings,
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
    "TenantSettings",
    "load_settings",
    "parse_settings",
    "profile_names",
    "read_tree",
]
