"""Where it is told that a pool's machine is about to be taken away."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from weir.settings.section import Section

#: Taints by which what watches a cloud's notices marks a node that is about to go.
USUAL_TAINTS = (
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/rebalance-recommendation",
    "cloud.google.com/impending-node-termination",
    "karpenter.sh/disrupted",
)


class NoticeSettings(Section):
    """``source``: the metadata service of a cloud's machine, the node's taints and conditions in
    Kubernetes, or a ``file`` that is there once there is a notice. ``url``: of the metadata service
    or of the API server, where it is not the usual one. ``taints``, ``conditions``: those that are
    a notice."""

    source: Literal["aws", "gcp", "azure", "kubernetes", "file"]
    url: str | None = None
    file: str | None = None
    period_s: float = Field(2.0, gt=0)
    taints: tuple[str, ...] = USUAL_TAINTS
    conditions: tuple[str, ...] = ("VMEventScheduled",)

    @model_validator(mode="after")
    def _file_goes_with_file(self) -> Self:
        if (self.source == "file") != (self.file is not None):
            raise ValueError("file is for source: file, which needs it")
        return self
