"""Settings of the ledger: what was used, by whom, and what it cost."""

from __future__ import annotations

from pydantic import Field

from weir.settings.section import Section

#: The supervisor tells the gateways by this where the state folder's ``ledger`` is.
FOLDER_VARIABLE = "WEIR_LEDGER_FOLDER"


class LedgerSettings(Section):
    """``enabled``: whether anything is recorded. ``folder``: where gateways keep records that the
    database does not have yet (null: ``ledger`` in the state folder); it should outlive a gateway.
    ``outbox_max_bytes``: of one gateway process's; more is lost, and counted.
    ``keep_records_days``: so long single records stay in the database; their sums stay."""

    enabled: bool = True
    folder: str | None = None
    outbox_max_bytes: int = Field(256 * 1024 * 1024, ge=1024 * 1024)
    keep_records_days: int = Field(90, ge=1)
