"""The data folder: parquet files of the offline store, and a manifest that says what is in them.

=============================  ===============================================================
manifest.json                  the spec, the stores, row counts, a hash of the content
entities.parquet               who there is: key, tenant, popularity, split
contacts.parquet               raw contacts, the history that generation reads
offline/VIEW/*.parquet         rows of a feature view; ``push-*.parquet`` came by ``push``
generated/version=*/           parts of generation runs, published ones and others
registry.db                    Feast's registry
=============================  ===============================================================
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.desk_data import tables
from features.desk_data.contacts import CHANNELS, INTENTS, Contacts, make_contacts
from features.desk_data.orders import make_orders
from features.desk_data.people import People, make_people, word_pool
from features.desk_data.spec import DeskDataSpec
from features.desk_data.views import ENTITY, GENERATED, View, view
from weir.errors import ConfigError
from weir.samples import render_system

FORMAT = 1
_FIRST = "00-history.parquet"


class DataFolder:
    """Where the data is. Nothing is created before the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest_file = root / "manifest.json"
        self.entities_file = root / "entities.parquet"
        self.contacts_file = root / "contacts.parquet"
        self.registry_file = root / "registry.db"
        self.generated = root / "generated"

    def offline(self, view: View) -> Path:
        """The folder with a view's parquet files."""
        return self.root / "offline" / view.name

    def manifest(self) -> dict[str, Any]:
        """What was written.

        Raises:
            ConfigError: there is no data set in the folder.
        """
        try:
            held = json.loads(self.manifest_file.read_text("utf-8"))
        except (OSError, ValueError):
            raise ConfigError(
                f"no data set in {self.root}; 'weir features apply' makes one"
            ) from None
        return dict(held)

    @property
    def as_of(self) -> dt.datetime:
        """The time of the newest rows of the data set itself, UTC."""
        day = dt.date.fromisoformat(self.manifest()["spec"]["as_of"])
        return dt.datetime.combine(day, dt.time(), dt.UTC)


def write_desk_data(
    spec: DeskDataSpec, folder: DataFolder, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Make the data set and write it; the manifest comes last, and is returned.

    ``progress`` is told what is being made.
    """
    progress("customers")
    pool = word_pool(spec.seed)
    people = make_people(spec, pool)
    progress("orders")
    rng = np.random.default_rng((spec.seed, 5))
    earlier, current = make_orders(people, pool, rng), make_orders(people, pool, rng)
    progress("contacts")
    contacts = make_contacts(spec, people)
    made = {
        "customer_profile": tables.profile_columns(spec, people),
        "customer_orders": tables.order_columns(spec, people, earlier, current),
        "customer_contacts": tables.contact_columns(spec, people, contacts),
    }
    written = {
        folder.entities_file: _entities(spec, people),
        folder.contacts_file: _raw_contacts(people, contacts),
        folder.offline(GENERATED) / _FIRST: tables.empty_table(GENERATED),
    }
    for name, columns in made.items():
        written[folder.offline(view(name)) / _FIRST] = tables.view_table(view(name), columns)
    for file, table in written.items():
        progress(file.relative_to(folder.root).as_posix())
        write_table(table, file)
    manifest = _manifest(spec, {f.relative_to(folder.root): t for f, t in written.items()})
    replace_text(folder.manifest_file, json.dumps(manifest, indent=2) + "\n")
    return manifest


def write_table(table: pa.Table, file: Path) -> None:
    """Write whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    pq.write_table(table, fresh, compression="zstd")
    fresh.replace(file)


def replace_text(file: Path, text: str) -> None:
    """Write whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(text, "utf-8")
    fresh.replace(file)


def content_sha256(table: pa.Table) -> str:
    """A hash of names, types and values: the same for every version of the file format."""
    digest = hashlib.sha256()
    for field in table.schema:
        digest.update(f"{field.name}:{field.type}:{table.num_rows}\n".encode())
        column = table.column(field.name)
        if pa.types.is_string(field.type):
            for value in column.to_pylist():
                digest.update(f"{value}\x00".encode())
            continue
        if pa.types.is_timestamp(field.type):
            column = column.cast(pa.int64())
        digest.update(column.to_numpy().tobytes())
    return digest.hexdigest()


def _entities(spec: DeskDataSpec, people: People) -> pa.Table:
    names = np.array([tenant.tenant_id for tenant in spec.tenants], dtype=object)
    return pa.table(
        {
            ENTITY: people.keys,
            "tenant_id": names[people.tenants],
            "entity_id": people.entity_ids,
            "popularity_rank": people.ranks,
            "traffic_share": people.weights,
            "split": np.where(people.heldout, "heldout", "train").astype(object),
        }
    )


def _raw_contacts(people: People, contacts: Contacts) -> pa.Table:
    moment = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            ENTITY: people.keys[contacts.customers],
            "at": pa.array(contacts.at_s * 1_000_000, pa.int64()).cast(moment),
            "intent": np.array(INTENTS, dtype=object)[contacts.intents],
            "channel": np.array(CHANNELS, dtype=object)[contacts.channels],
        }
    )


def _manifest(spec: DeskDataSpec, written: Mapping[Path, pa.Table]) -> dict[str, Any]:
    files = {
        name.as_posix(): {"rows": table.num_rows, "sha256": content_sha256(table)}
        for name, table in written.items()
    }
    tree = dataclasses.asdict(spec) | {
        "as_of": spec.as_of.isoformat(),
        "tenants": [dataclasses.asdict(tenant) for tenant in spec.tenants],
    }
    whole = hashlib.sha256("".join(str(each["sha256"]) for each in files.values()).encode())
    return {
        "format": FORMAT,
        "spec": tree,
        "stores": {each.tenant_id: _store(spec, each.tenant_id) for each in spec.tenants},
        "sha256": whole.hexdigest(),
        "files": files,
    }


def _store(spec: DeskDataSpec, tenant_id: str) -> dict[str, str]:
    """Its name, and the system prompt that its conversations begin with."""
    store = spec.store(tenant_id)
    return {"name": store.name, "system": render_system(store)}
