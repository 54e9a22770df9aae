"""What enrichment did, and how a response says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from features.enrichment.source import Problem
from features.online.service import Outcome as RowOutcome
from weir.errors import AuthenticationError, BadRequestError, NotFoundError, OverloadedError

BodyT = TypeVar("BodyT")
Outcome = RowOutcome | Literal["off", "invalid"]

HEADER = b"x-weir-features"
AGE_HEADER = b"x-weir-features-age-s"
REASON_HEADER = b"x-weir-features-reason"


class EntityRequiredError(BadRequestError):
    """Features are required here, and the request names no entity."""

    code = "entity_required"


class EntityInvalidError(BadRequestError):
    """Features are required here, and what the request names can be no entity."""

    code = "entity_invalid"


class ClaimUnverifiedError(AuthenticationError):
    """Features are required here, and the token that names the entity cannot be believed."""

    code = "claim_unverified"


class EntityNotFoundError(NotFoundError):
    """Features are required here, and the tenant has no such entity."""

    code = "entity_not_found"


class FeaturesUnavailableError(OverloadedError):
    """Features are required here, and cannot be had now."""

    code = "features_unavailable"


@dataclass(frozen=True, slots=True)
class Enrichment(Generic[BodyT]):
    """The body that is tokenized, and what was known.

    ``outcome`` ``off`` or ``invalid``: nothing was looked up, ``reason`` says why, and ``problem``
    which kind of why. ``enriched``: text was added.
    ``long_tail``: the store answered, and has no generated features of the entity.
    """

    body: BodyT
    outcome: Outcome = "off"
    reason: str = ""
    problem: Problem = ""
    enriched: bool = False
    long_tail: bool = False
    entity_id: str | None = None
    age_s: float | None = None

    @property
    def asked_for(self) -> bool:
        """Whether a rule asks for features of this request."""
        return self.outcome != "off" or self.reason != ""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers; none where no rule asks for features."""
        if not self.asked_for:
            return []
        pairs = [(HEADER, self.outcome.encode())]
        if self.age_s is not None:
            pairs.append((AGE_HEADER, b"%.1f" % self.age_s))
        if self.reason:
            pairs.append((REASON_HEADER, self.reason.encode("ascii", "replace")))
        return pairs


def require(enrichment: Enrichment[BodyT], source_field: str) -> None:
    """Where features are required: what an outcome that is not enough is answered with.

    Raises:
        EntityRequiredError: the request names no entity (400).
        EntityInvalidError: what it names can be no entity (400).
        ClaimUnverifiedError: the token that names it cannot be believed (401).
        EntityNotFoundError: the tenant has no such entity (404).
        FeaturesUnavailableError: the store did not give all features, fresh, in time (503).
    """
    outcome, reason = enrichment.outcome, enrichment.reason
    if outcome == "hit":
        return
    if outcome == "invalid":
        raise EntityInvalidError(f"{source_field}: {reason}.", param=source_field)
    if enrichment.problem == "claim-unverified":
        raise ClaimUnverifiedError(f"{source_field}: {reason}.", param=source_field)
    if outcome == "off" and enrichment.problem != "no-issuer-keys":
        raise EntityRequiredError(
            f"{source_field}: this model needs to know whom the request is about ({reason}).",
            param=source_field,
        )
    if outcome == "missing":
        raise EntityNotFoundError(
            f"{source_field}: nothing is known about {str(enrichment.entity_id)[:64]!r}.",
            param=source_field,
        )
    raise FeaturesUnavailableError(
        f"The features that this model needs cannot be had now: {outcome}"
        f"{f' ({reason})' if reason else ''}.",
        param=source_field,
        retry_after_s=1.0,
    )
