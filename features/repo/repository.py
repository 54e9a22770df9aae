"""What weir asks of Feast: apply, materialize, push, look up, join with history."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureStore
from feast.data_source import PushMode
from feast.infra.offline_stores import dask

from features.desk_data import VIEWS, DataFolder, View, view
from features.desk_data.tables import schema
from features.desk_data.views import CREATED, ENTITY, EVENT_TIMESTAMP
from features.desk_data.writing import write_table
from features.online import StoreSecurity
from features.repo.config import store_config
from features.repo.definitions import definitions
from weir.errors import WeirError

_BEGINNING = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


class PushError(WeirError):
    """An event cannot be pushed; the message says which line and why."""

    code = "bad_event"


@dataclass(frozen=True, slots=True)
class ViewHeld:
    """What the online store holds of one view. ``event_time`` None: no row."""

    view: View
    values: Mapping[str, Any]
    event_time: dt.datetime | None

    def age(self, now: dt.datetime) -> dt.timedelta | None:
        """Time since the row's event; None without a row."""
        return None if self.event_time is None else now - self.event_time


@dataclass(frozen=True, slots=True)
class Held:
    """What the online store holds of one entity."""

    entity: str
    views: tuple[ViewHeld, ...]

    @property
    def known(self) -> bool:
        """There is a row of any view."""
        return any(each.event_time for each in self.views)


class FeatureRepository:
    """weir's features in Feast. Building one costs the import of Feast, and little else."""

    def __init__(
        self, redis_url: str, folder: DataFolder, security: StoreSecurity | None = None
    ) -> None:
        folder.root.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = FeatureStore(config=store_config(redis_url, folder.root, security))

    @property
    def store(self) -> FeatureStore:
        """Feast's own client, for comparisons."""
        return self._store

    def apply(self) -> list[str]:
        """Register all definitions; returns their names. Applying twice changes nothing."""
        objects = definitions(self._folder.root)
        with _quiet():
            self._store.apply(objects)
        return [f"{type(each).__name__} {each.name}" for each in objects]

    def materialize(
        self,
        views: Sequence[str],
        until: dt.datetime,
        *,
        everything: bool,
        progress: Callable[[str, int], None] = lambda view, rows: None,
    ) -> dict[str, int]:
        """Write each entity's newest row up to ``until`` into the online store.

        Args:
            everything: from the beginning; else what came since each view's last time.
            progress: told the view and the rows written so far, after each batch.

        Returns:
            Rows written, by view.
        """
        written: dict[str, int] = {}
        for name in views:
            with self._counting(name, written, progress), _quiet():
                if everything or not self._intervals(name):
                    self._store.materialize(_BEGINNING, until, feature_views=[name])
                else:
                    self._store.materialize_incremental(until, feature_views=[name])
        return written

    def push(self, name: str, rows: Sequence[Mapping[str, Any]]) -> int:
        """Fresh rows of a view: into the online store at once, and into its history.

        Each row has ``entity``, all features of the view, and ``event_timestamp`` (ISO 8601).

        Raises:
            PushError: a row does not fit the view; nothing was pushed.
        """
        table = _rows_table(view(name), rows)
        frame = table.to_pandas()
        with _quiet():
            self._store.push(view(name).push_source, frame, to=PushMode.ONLINE)
        # Feast's own offline write rewrites the one file of a source whole; a file per push is
        # atomic, and reading a folder is the same to Feast.
        stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%S%f")
        write_table(table, self._folder.offline(view(name)) / f"push-{stamp}.parquet")
        return len(frame)

    def held(self, entity: str) -> Held:
        """What the online store holds of ``entity`` now, whatever its age.

        Feast reports a missing row on Redis as present and empty; its event time of 0 tells.
        """
        refs = [f"{each.name}:{field}" for each in VIEWS for field in each.field_names]
        with _quiet():
            answer = self._store.get_online_features(
                refs, [{ENTITY: entity}], full_feature_names=True
            ).to_dict(include_event_timestamps=True)
        return Held(entity, tuple(_held(each, answer) for each in VIEWS))

    def join(
        self, entities: pd.DataFrame, refs: Sequence[str], *, only_known: bool
    ) -> pd.DataFrame:
        """Feast's historical join; see :mod:`features.history` for what it leaves to the caller."""
        with _quiet(), _one_partition():
            job = self._store.get_historical_features(
                entities,
                list(refs),
                full_feature_names=True,
                filter_by_created_timestamp=only_known,
            )
            return job.to_df()

    def _intervals(self, name: str) -> list[Any]:
        return list(self._store.get_feature_view(name).materialization_intervals)

    @contextlib.contextmanager
    def _counting(
        self, name: str, written: dict[str, int], progress: Callable[[str, int], None]
    ) -> Iterator[None]:
        """Feast's materialization tells nobody how far it is: its online store is the one place
        that all rows pass, and is asked to count them."""
        online = self._store._get_provider().online_store
        write = online.online_write_batch
        written[name] = 0

        def counted(config: Any, table: Any, data: Any, progress_bar: Any = None, **kw: Any) -> Any:
            result = write(config, table, data, kw.get("progress", progress_bar))
            written[name] += len(data)
            progress(name, written[name])
            return result

        online.online_write_batch = counted
        try:
            yield
        finally:
            del online.online_write_batch


def _held(view: View, answer: Mapping[str, list[Any]]) -> ViewHeld:
    names = {field: f"{view.name}__{field}" for field in view.field_names}
    stamp = answer[f"{next(iter(names.values()))}__ts"][0]
    seconds = stamp.timestamp() if isinstance(stamp, dt.datetime) else float(stamp or 0)
    event_time = dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds > 0 else None
    values = {field: answer[name][0] for field, name in names.items()} if event_time else {}
    return ViewHeld(view, values, event_time)


def _rows_table(view: View, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    wanted = {ENTITY, EVENT_TIMESTAMP, *view.field_names}
    checked = []
    for number, row in enumerate(rows, 1):
        if set(row) != wanted:
            missing, unknown = sorted(wanted - set(row)), sorted(set(row) - wanted)
            raise PushError(f"event {number}: missing {missing}, unknown {unknown}")
        try:
            at = dt.datetime.fromisoformat(str(row[EVENT_TIMESTAMP]))
        except ValueError as error:
            raise PushError(f"event {number}: {EVENT_TIMESTAMP}: {error}") from None
        if at.tzinfo is None:
            raise PushError(f"event {number}: {EVENT_TIMESTAMP} has no time zone")
        checked.append({**row, EVENT_TIMESTAMP: at, CREATED: dt.datetime.now(dt.UTC)})
    try:
        return pa.Table.from_pylist(checked, schema=schema(view))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise PushError(f"an event does not fit {view.name}: {error}") from None


@contextlib.contextmanager
def _one_partition() -> Iterator[None]:
    """A source of several files, as each push makes it, is several partitions to dask. Feast 0.67
    sorts them by a time that has no value where an entity has no row, which dask refuses if a
    partition has nothing else. One partition is sorted by pandas, which does not."""
    read = dask._read_datasource

    def whole(*arguments: Any) -> Any:
        return read(*arguments).repartition(npartitions=1)

    dask._read_datasource = whole
    try:
        yield
    finally:
        dask._read_datasource = read


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Feast prints, and dask warns of pandas' future; neither is for the command's user."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
