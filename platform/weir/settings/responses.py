"""How many responses are kept, for how long, and how many may run in the background."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from weir.settings.section import Section

_MIB = 1024 * 1024


class ResponsesSettings(Section):
    """Responses of ``/v1/responses`` that were not asked to be forgotten (``store: false``).

    Each bound is kept by forgetting: a tenant over its own bounds loses its oldest response, and
    where all together are too many, the tenant that holds the most bytes loses its oldest.
    ``max_background_per_tenant``: that may run in one gateway process at a time.
    """

    ttl_s: float = Field(86_400.0, gt=0)
    max_entries_per_tenant: int = Field(1_000, ge=1)
    max_bytes_per_tenant: int = Field(32 * _MIB, ge=1)
    max_entries: int = Field(20_000, ge=1)
    max_bytes: int = Field(256 * _MIB, ge=1)
    max_background_per_tenant: int = Field(64, ge=0)

    @model_validator(mode="after")
    def _all_is_at_least_one_tenants(self) -> Self:
        for name in ("entries", "bytes"):
            if getattr(self, f"max_{name}") < getattr(self, f"max_{name}_per_tenant"):
                raise ValueError(f"max_{name} is below max_{name}_per_tenant")
        return self
