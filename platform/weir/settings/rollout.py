"""How a candidate version is tried: how much traffic it gets when, and how it is judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from weir.settings.section import Section

Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(gt=1.0, le=100.0)]


class PerplexitySettings(Section):
    """How much less likely a candidate's answers may be than the live version's, to a third model.

    ``model``: the one that judges, by its name in the settings; neither of the two that are
    compared, which would find most likely what it says itself. ``share``: so many of the mirrored
    answers are scored. ``worse_by``: by so large a share the perplexity may be higher (0.1: by a
    tenth). ``prompt_tokens_per_minute``: so much the model may have to read for this, in all
    gateways together (null: no bound); what is beyond is left out."""

    model: str = Field(min_length=1)
    share: float = Field(1.0, gt=0.0, le=1.0)
    worse_by: float = Field(0.1, gt=0.0, le=10.0)
    prompt_tokens_per_minute: int | None = Field(200_000, ge=1)


class JudgeSettings(Section):
    """When a candidate is worse, and how sure one has to be.

    ``ttft_ratio``, ``tpot_ratio``: so many times the live version's time to first token and per
    output token are allowed (in the median of pairs). ``length_ratio``: so many times longer or
    shorter answers may be. ``more_errors``: by so much the share of failed requests may be higher.
    ``more_invalid``: the same of answers that are not in the format that was asked for (null: not
    judged). ``disagreement``: of mirrored requests with temperature 0, so large a share of answers
    may differ from the live version's (null: not judged). ``perplexity``: how likely
    mirrored answers are to another model (null: not judged). ``false_rollback``: chance that a
    candidate within all of these is rolled back; ``false_promotion``: that one beyond any of them
    is promoted. ``least_answers``: it is not promoted before it has given so many."""

    ttft_ratio: Ratio = 1.1
    tpot_ratio: Ratio = 1.1
    length_ratio: Ratio = 1.25
    more_errors: Probability = 0.01
    more_invalid: Probability | None = 0.01
    disagreement: Probability | None = None
    perplexity: PerplexitySettings | None = None
    false_rollback: Probability = 0.05
    false_promotion: Probability = 0.05
    least_answers: int = Field(200, ge=1)


class RolloutSettings(Section):
    """``steps``: the shares of conversations that the candidate gets one after the other; each for
    at least ``step_s`` seconds, and as long as there is evidence of ``hold_evidence`` or more (an
    e-value) that it is worse. ``mirror``: the share of the other requests that it is asked as
    well, unseen by clients and unbilled. ``most_s``: after so long without a verdict
    ``on_timeout`` happens."""

    steps: tuple[Share, ...] = (0.01, 0.05, 0.25, 0.5)
    step_s: float = Field(300.0, ge=0)
    mirror: Share = 0.0
    hold_evidence: float = Field(3.0, ge=1)
    most_s: float = Field(86_400.0, gt=0)
    on_timeout: Literal["roll back", "hold"] = "roll back"
    promote: Literal["automatic", "hold"] = "automatic"
    judge: JudgeSettings = Field(default_factory=JudgeSettings)

    @model_validator(mode="after")
    def _grows(self) -> RolloutSettings:
        if not self.steps:
            raise ValueError("steps: expected at least one share")
        if list(self.steps) != sorted(self.steps):
            raise ValueError("steps: expected shares that do not shrink")
        if not self.mirror and self.judge.disagreement is not None:
            raise ValueError("judge.disagreement: needs mirrored requests; set mirror above 0")
        if not self.mirror and self.judge.perplexity is not None:
            raise ValueError("judge.perplexity: needs mirrored requests; set mirror above 0")
        return self
