"""What is known of tenants and keys, as it was read, and a file that it outlives its process in.
The file holds digests of keys, never keys, and is its owner's only."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from weir.rollouts.course import Rollout, as_document, rollouts_of
from weir.settings.tenants import TenantFields, TenantSettings
from weir.tenancy.directory import Directory
from weir.tenancy.fields import (
    KeyFields,
    fields_of_key,
    fields_of_tenant,
    key_of_fields,
    read_fields,
    tenant_of_fields,
)
from weir.tenancy.records import Changes
from weir.tenancy.rows import ROLLOUTS, YAML
from weir.tenancy.tenant import Key, Tenant

_VERSION = 1


@dataclass
class Known:
    """What is known of the directory, as it was read."""

    listed: tuple[TenantSettings, ...]
    tenants: dict[str, Tenant] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    revision: int = -1
    rollouts: tuple[Rollout, ...] = ()

    def take(self, changes: Changes) -> None:
        """What was changed in the database."""
        for each in changes.tenants:
            if each.deleted_s is None:
                self.tenants[each.tenant.id] = each.tenant
            else:
                self.tenants.pop(each.tenant.id, None)
        for key in changes.keys:
            if key.revoked_s is None:
                self.keys[key.id] = key
            else:
                self.keys.pop(key.id, None)
        if changes.documents and YAML in changes.documents:
            body = changes.documents[YAML]
            self.listed = tuple(read_fields(TenantSettings, each) for each in body)
        if changes.documents and ROLLOUTS in changes.documents:
            self.rollouts = rollouts_of(changes.documents[ROLLOUTS])
        self.revision = changes.revision

    def directory(self) -> Directory:
        """All of it, frozen."""
        return Directory.of(
            self.listed, self.tenants.values(), self.keys.values(), self.revision, self.rollouts
        )

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {
            "version": _VERSION,
            "revision": self.revision,
            "rollouts": as_document(self.rollouts),
            "listed": [each.model_dump(mode="json") for each in self.listed],
            "tenants": {
                name: fields_of_tenant(each).model_dump(mode="json")
                for name, each in self.tenants.items()
            },
            "keys": {
                name: {
                    "tenant": key.tenant,
                    "digest": key.digest,
                    "created_s": key.created_s,
                    "fields": fields_of_key(key).model_dump(mode="json"),
                }
                for name, key in self.keys.items()
            },
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Known:
        """Raises:
        KeyError, TypeError, ValueError: it is not what :meth:`to_json` gives.
        """
        if kept["version"] != _VERSION:
            raise ValueError("another version's file")
        return cls(
            tuple(read_fields(TenantSettings, each) for each in kept["listed"]),
            {
                name: tenant_of_fields(name, read_fields(TenantFields, each))
                for name, each in kept["tenants"].items()
            },
            {
                name: key_of_fields(
                    name,
                    each["tenant"],
                    each["digest"],
                    read_fields(KeyFields, each["fields"]),
                    created_s=each["created_s"],
                )
                for name, each in kept["keys"].items()
            },
            int(kept["revision"]),
            rollouts_of(kept.get("rollouts", ())),
        )


def read_known(file: Path) -> Known | None:
    """What was known last; None where there is no file, or none that can be read."""
    try:
        return Known.from_json(json.loads(file.read_text("utf-8")))
    except (OSError, KeyError, TypeError, ValueError):
        return None


def write_known(file: Path, known: Known) -> None:
    """Replace the file whole.

    Raises:
        OSError: it cannot be written.
    """
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
        json.dump(known.to_json(), handle)
    fresh.replace(file)
