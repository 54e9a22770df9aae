"""Where tenants, keys, the audit log, the ledger and batch jobs are kept."""

from __future__ import annotations

from pydantic import Field, field_validator

from weir.settings.section import Section

_SCHEMES = ("sqlite", "postgresql", "postgres")


class DatabaseSettings(Section):
    """``url``: ``postgresql://USER@HOST/NAME`` or ``sqlite:////absolute/path``; null is a SQLite
    file in the state folder. A password belongs into the environment variable
    ``WEIR_DATABASE_URL``, which wins over ``url``. ``poll_s``: so often gateways look whether
    tenants or keys have changed."""

    url: str | None = None
    poll_s: float = Field(0.3, ge=0.05, le=60)

    @field_validator("url")
    @classmethod
    def _is_known(cls, url: str | None) -> str | None:
        if url is not None and url.partition(":")[0].partition("+")[0] not in _SCHEMES:
            raise ValueError("expected postgresql://... or sqlite:///...")
        return url
