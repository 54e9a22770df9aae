"""The support desk's data set: customers, orders, loyalty and past contacts of several tenants.

Synthetic, but shaped like the real thing: popularity follows Zipf's law, features change over time
and carry the time at which they became known. All of it is a function of a :class:`DeskDataSpec`.
"""

from features.desk_data.spec import DeskDataSpec, TenantShare
from features.desk_data.views import GENERATED, PLAIN_VIEWS, VIEWS, FieldType, View, view
from features.desk_data.writing import DataFolder, write_desk_data

__all__ = [
    "GENERATED",
    "PLAIN_VIEWS",
    "VIEWS",
    "DataFolder",
    "DeskDataSpec",
    "FieldType",
    "TenantShare",
    "View",
    "view",
    "write_desk_data",
]
