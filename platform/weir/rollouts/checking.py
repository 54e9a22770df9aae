"""Whether two models of the settings can be a model and its candidate."""

from __future__ import annotations

from weir.errors import BadRequestError, NotFoundError
from weir.settings import ModelSettings, Settings
from weir.settings.rollout import JudgeSettings


def check_candidate(
    settings: Settings, model: str, candidate: str, judge: JudgeSettings | None = None
) -> None:
    """``judge``: how it is to be judged.

    Raises:
        NotFoundError: one of them, or the model that judges, is not in the settings.
        BadRequestError: names what stands against it.
    """
    own, tried = _find(settings, model, "model"), _find(settings, candidate, "candidate")
    if own.name == tried.name:
        raise BadRequestError("candidate: it is the model itself", param="candidate")
    if own.price != tried.price:
        raise BadRequestError(
            f"candidate: {candidate!r} has another price than {model!r}: what a tenant pays would "
            "be a matter of chance",
            param="candidate",
        )
    if own.fallback is not None and own.fallback.student == tried.name:
        raise BadRequestError(
            f"candidate: {candidate!r} is the student of {model!r}", param="candidate"
        )
    if judge is not None and judge.perplexity is not None:
        field = "judge.perplexity.model"
        judging = _find(settings, judge.perplexity.model, field)
        if judging.name in (own.name, tried.name):
            raise BadRequestError(
                f"{field}: {judging.name!r} would judge itself, and finds most likely what it says "
                "itself; name a third model",
                param=field,
            )


def _find(settings: Settings, name: str, param: str) -> ModelSettings:
    found = next((each for each in settings.models if each.name == name), None)
    if found is None:
        names = ", ".join(each.name for each in settings.models)
        raise NotFoundError(
            f"There is no model {name!r} in the settings (there are: {names}).", param=param
        )
    return found
