"""Training data without leakage: for each row, the features that were known at its time.

Feast's join picks the newest row whose event time is not after the asked time. Three things that it
leaves to the caller are done here:

- With ``only_known`` rows that had been *created* only later do not count either: an event of noon
  that arrived at one o'clock was not known at half past twelve.
- On parquet files (Feast 0.67) a row of the entity frame for which a view has only too new or too
  old rows vanishes from the answer, instead of getting nulls. Views are joined one by one and put
  back onto the rows that were asked for.
- Rows of the entity frame that are asked for twice come out twice, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.desk_data import view
from features.desk_data.views import ENTITY, EVENT_TIMESTAMP, SERVICES
from features.keys import entity_key
from weir.errors import WeirError

if TYPE_CHECKING:
    import pandas as pd

    from features.repo import FeatureRepository


class HistoryError(WeirError):
    """The entity file cannot be used; the message says why."""

    code = "bad_entities"


def training_set(
    repository: FeatureRepository,
    entities: pd.DataFrame,
    service: str = "support_desk",
    *,
    only_known: bool = True,
) -> pd.DataFrame:
    """Join the features of ``service`` to ``entities``.

    Args:
        entities: columns ``entity`` and ``event_timestamp`` (with time zone); others, labels for
            instance, are kept.

    Returns:
        The same rows in the same order, with a column ``view__feature`` for each feature; null
        where nothing was known, or only something older than the view's time to live.
    """
    joined = entities.copy()
    asked = entities[[ENTITY, EVENT_TIMESTAMP]].drop_duplicates(ignore_index=True)
    for name in SERVICES[service]:
        refs = [f"{name}:{field}" for field in view(name).field_names]
        found = repository.join(asked, refs, only_known=only_known)
        columns = [f"{name}__{field}" for field in view(name).field_names]
        found = found[[ENTITY, EVENT_TIMESTAMP, *columns]]
        joined = joined.merge(
            found, on=[ENTITY, EVENT_TIMESTAMP], how="left", validate="many_to_one"
        )
    return joined


def read_entities(file: Path) -> pd.DataFrame:
    """The entity frame from CSV, JSON lines or parquet.

    Columns: ``entity`` (``tenant/id``) or ``tenant_id`` and ``entity_id``; ``event_timestamp`` in
    ISO 8601 with a time zone; any others.

    Raises:
        HistoryError: what is wrong with the file.
    """
    import pandas as pd

    readers: dict[str, Any] = {
        ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
        ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False, convert_dates=False),
        ".parquet": pd.read_parquet,
    }
    if file.suffix not in readers:
        raise HistoryError(f"{file}: expected one of {', '.join(readers)}")
    try:
        frame = readers[file.suffix](file)
    except (OSError, ValueError) as error:
        raise HistoryError(f"{file}: {error}") from None
    frame = _with_keys(file, frame)
    if EVENT_TIMESTAMP not in frame:
        raise HistoryError(f"{file}: no column {EVENT_TIMESTAMP}")
    frame[EVENT_TIMESTAMP] = _moments(file, frame[EVENT_TIMESTAMP])
    return frame


def write_training_set(frame: pd.DataFrame, file: Path) -> None:
    """As parquet or CSV, by the file's name.

    Raises:
        HistoryError: another suffix.
    """
    if file.suffix not in (".parquet", ".csv"):
        raise HistoryError(f"{file}: expected .parquet or .csv")
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        frame.to_parquet(file, index=False)
    else:
        frame.to_csv(file, index=False)


def known_services() -> Sequence[str]:
    """Feature services that a training set can be made for."""
    return tuple(SERVICES)


def _with_keys(file: Path, frame: pd.DataFrame) -> pd.DataFrame:
    if ENTITY in frame:
        return frame
    if not {"tenant_id", "entity_id"} <= set(frame.columns):
        raise HistoryError(f"{file}: no column {ENTITY}, and not both tenant_id and entity_id")
    pairs = zip(frame["tenant_id"], frame["entity_id"], strict=True)
    try:
        frame[ENTITY] = [entity_key(str(tenant), str(entity)) for tenant, entity in pairs]
    except ValueError as error:
        raise HistoryError(f"{file}: {error}") from None
    return frame


def _moments(file: Path, column: Any) -> Any:
    import pandas as pd

    try:
        moments = [pd.Timestamp(value) for value in column]
    except ValueError as error:
        raise HistoryError(f"{file}: {EVENT_TIMESTAMP}: {error}") from None
    if naive := next((n for n, each in enumerate(moments, 1) if each.tzinfo is None), None):
        raise HistoryError(f"{file}: row {naive}: {EVENT_TIMESTAMP} has no time zone")
    return pd.to_datetime(moments, utc=True)
