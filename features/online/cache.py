"""A small cache of rows with a time to live; that an entity has nothing is remembered too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from features.online.service import FeatureRow


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Least recently used entries leave first; 0 entries or a time to live of 0: no cache."""

    entries: int = 10_000
    ttl_s: float = 1.0
    negative_ttl_s: float = 1.0


class RowCache:
    """Keys to rows. Times come from the caller: monotonic seconds, and seconds since the epoch."""

    def __init__(self, settings: CacheSettings) -> None:
        self._settings = settings
        self._rows: OrderedDict[Hashable, tuple[float, FeatureRow]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Hashable, now_s: float, wall_s: float) -> FeatureRow | None:
        """The row, unless it is too old or a view of it has become stale meanwhile."""
        entry = self._rows.get(key)
        if entry is None:
            return None
        expires_s, row = entry
        if now_s >= expires_s or wall_s > row.changes_at_s:
            del self._rows[key]
            return None
        self._rows.move_to_end(key)
        return row

    def put(self, key: Hashable, row: FeatureRow, now_s: float) -> None:
        """Remember what the store said."""
        settings = self._settings
        ttl_s = settings.negative_ttl_s if row.outcome == "missing" else settings.ttl_s
        if ttl_s <= 0 or settings.entries <= 0:
            return
        self._rows[key] = (now_s + ttl_s, row)
        self._rows.move_to_end(key)
        if len(self._rows) > settings.entries:
            self._rows.popitem(last=False)
