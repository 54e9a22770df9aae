"""How far Ray Serve may scale a model by itself."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from weir.settings.section import Section


class AutoscalingSettings(Section):
    """Between ``min_replicas`` and ``max_replicas``, so that each has about
    ``target_ongoing_requests`` in flight."""

    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(16.0, gt=0)
    upscale_delay_s: float = Field(3.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must be at least min_replicas")
        return self
