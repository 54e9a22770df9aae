"""Entity, feature views, push sources and feature services, as Feast objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Float64, Int64, String

from features.desk_data import VIEWS, DataFolder, FieldType, View
from features.desk_data.views import CREATED, ENTITY, EVENT_TIMESTAMP, SERVICES

PROJECT = "weir"
_TYPES = {FieldType.STRING: String, FieldType.INT64: Int64, FieldType.DOUBLE: Float64}


def definitions(data_dir: Path) -> list[Any]:
    """Everything that ``apply`` registers; paths of the sources are absolute."""
    customer = Entity(
        name="customer",
        join_keys=[ENTITY],
        value_type=ValueType.STRING,
        description="A customer of one tenant: <tenant>/<entity id>",
    )
    folder = DataFolder(Path(data_dir).resolve())
    views = {each.name: _feature_view(each, customer, folder) for each in VIEWS}
    services = [
        FeatureService(name=name, features=[views[each] for each in names])
        for name, names in SERVICES.items()
    ]
    return [customer, *views.values(), *services]


def _feature_view(view: View, customer: Entity, folder: DataFolder) -> FeatureView:
    history = FileSource(
        name=f"{view.name}_history",
        path=str(folder.offline(view)),
        timestamp_field=EVENT_TIMESTAMP,
        created_timestamp_column=CREATED,
    )
    return FeatureView(
        name=view.name,
        description=view.about,
        entities=[customer],
        ttl=view.ttl,
        schema=[Field(name=name, dtype=_TYPES[kind]) for name, kind in view.fields],
        online=True,
        source=PushSource(name=view.push_source, batch_source=history),
    )
