"""Which entities are worth writing about."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow.parquet as pq

from features.desk_data import GENERATED, DataFolder
from features.desk_data.views import ENTITY


def head_entities(
    folder: DataFolder, count: int, *, leave_out: Collection[str] = (), tenant: str | None = None
) -> list[str]:
    """The ``count`` most popular entities that are not in ``leave_out``, most popular first."""
    table = pq.read_table(folder.entities_file).sort_by("popularity_rank")
    rows = zip(table[ENTITY].to_pylist(), table["tenant_id"].to_pylist(), strict=True)
    skip = frozenset(leave_out)
    chosen = (e for e, t in rows if e not in skip and tenant in (None, t))
    return [entity for entity, _ in zip(chosen, range(count), strict=False)]


def known_entities(folder: DataFolder) -> frozenset[str]:
    """Everybody in the data set."""
    return frozenset(pq.read_table(folder.entities_file, columns=[ENTITY])[ENTITY].to_pylist())


def generated_entities(folder: DataFolder) -> frozenset[str]:
    """Entities that published features exist for."""
    table = pq.read_table(folder.offline(GENERATED), columns=[ENTITY])
    return frozenset(table[ENTITY].to_pylist())
