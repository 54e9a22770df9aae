"""The database, before a platform runs on it."""

from __future__ import annotations

from pathlib import Path

import yaml
from sqlalchemy import Engine

from deployments.preparing import main, wait_until_current
from weir.database import SchemaState, open_database, schema_state
from weir.errors import DatabaseAwayError
from weir.tenancy.database import TenantStore


def settings(folder: Path, *tenants: str) -> str:
    file = folder / "settings.yaml"
    tree = {
        "models": [{"name": "m", "source": "builtin:teacher"}],
        "tenants": [{"id": tenant} for tenant in tenants],
        "database": {"url": f"sqlite:///{folder / 'weir.db'}"},
    }
    file.write_text(yaml.safe_dump(tree))
    return str(file)


def opened(folder: Path) -> Engine:
    return open_database(f"sqlite:///{folder / 'weir.db'}")


def known(store: TenantStore) -> list[str]:
    return sorted(each.id for each in store.settings_tenants())


def test_the_schema_is_brought_up_to_date_and_tenants_are_put(tmp_path: Path) -> None:
    assert main(["--settings", settings(tmp_path, "shop")]) == 0
    store = TenantStore(opened(tmp_path))
    assert schema_state(store.engine) is SchemaState.CURRENT
    assert known(store) == ["shop"]
    assert main(["--settings", settings(tmp_path, "shop", "bank")]) == 0
    assert known(store) == ["bank", "shop"]
    store.close()


def test_waiting_ends_when_the_schema_is_current() -> None:
    states = iter([None, SchemaState.EMPTY, SchemaState.BEHIND, SchemaState.CURRENT])
    pauses = []

    def state() -> SchemaState:
        now = next(states)
        if now is None:
            raise DatabaseAwayError("The database does not answer.")
        return now

    wait_until_current(state, lambda: pauses.append(1))
    assert len(pauses) == 3


def test_who_waits_changes_nothing(tmp_path: Path) -> None:
    assert main(["--settings", settings(tmp_path)]) == 0
    assert main(["--settings", settings(tmp_path, "late"), "--wait"]) == 0
    store = TenantStore(opened(tmp_path))
    assert known(store) == []
    store.close()
