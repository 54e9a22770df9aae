"""The gate: bounds that a model must keep next to its teacher before it may be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Gate:
    """Bounds; None: not asked. Ratios are to the teacher's figure.

    `min_kept_accuracy_margin`: on the verifying split the answers above the confidence threshold
    may be right at most this much less often than the target.
    """

    min_common_ratio: float | None = 0.90
    min_rare_ratio: float | None = None
    max_perplexity_ratio: float | None = 2.0
    max_ece: float | None = 0.08
    max_kept_shortfall: float | None = 0.03
    max_parameter_share: float | None = 1 / 6
    max_bytes_share: float | None = None


STUDENT: Final = Gate()
QUANTIZED: Final = Gate(
    min_common_ratio=0.98,
    min_rare_ratio=0.85,
    max_perplexity_ratio=1.1,
    # It is asked to answer as the original does; the original's confidence may be poor as well.
    max_ece=None,
    max_kept_shortfall=None,
    max_parameter_share=None,
    max_bytes_share=0.85,
)
PRESETS: Final[Mapping[str, Gate]] = {"student": STUDENT, "quantized": QUANTIZED}


@dataclass(frozen=True, slots=True)
class Check:
    """One bound and what was found; a figure that is missing does not pass."""

    name: str
    value: float | None
    bound: float
    better: str

    @property
    def passed(self) -> bool:
        """On the bound counts as inside."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.better == "lower" else self.value >= self.bound

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "name": self.name,
            "value": self.value,
            "bound": self.bound,
            "better": self.better,
            "passed": self.passed,
        }

    def failure(self) -> str:
        """In words."""
        word = "at most" if self.better == "lower" else "at least"
        value = "not measured" if self.value is None else f"{self.value:.4g}"
        return f"{self.name}: {value}, must be {word} {self.bound:.4g}"


def _ratio(value: float | None, of: float | None) -> float | None:
    return None if value is None or not of else value / of


def _accuracy(figures: Mapping[str, Any], group: str) -> float | None:
    found = figures.get("held_out", {}).get("groups", {}).get(group)
    return None if found is None else float(found["accuracy"])


def checks(figures: Mapping[str, Any], teacher: Mapping[str, Any], gate: Gate) -> tuple[Check, ...]:
    """Every bound that `gate` sets, against the figures of a model and of its teacher."""
    sure = figures.get("confidence") or {}
    verified = (sure.get("verified") or {}).get("accuracy")
    # A threshold above which nothing stands breaks no promise.
    shortfall = 0.0 if sure and verified is None else None
    if verified is not None:
        shortfall = max(0.0, sure["target_accuracy"] - verified)
    found = {
        "min_common_ratio": _ratio(_accuracy(figures, "common"), _accuracy(teacher, "common")),
        "min_rare_ratio": _ratio(_accuracy(figures, "rare"), _accuracy(teacher, "rare")),
        "max_perplexity_ratio": _ratio(figures.get("perplexity"), teacher.get("perplexity")),
        "max_ece": sure.get("ece"),
        "max_kept_shortfall": shortfall,
        "max_parameter_share": _ratio(figures.get("parameters"), teacher.get("parameters")),
        "max_bytes_share": _ratio(figures.get("weight_bytes"), teacher.get("weight_bytes")),
    }
    return tuple(
        Check(name, value, bound, "lower" if name.startswith("max") else "higher")
        for name, value in found.items()
        if (bound := getattr(gate, name)) is not None
    )


def judge(figures: Mapping[str, Any], teacher: Mapping[str, Any], gate: Gate) -> dict[str, Any]:
    """The plain content of a gate report: passed, failures, checks, metrics."""
    made = checks(figures, teacher, gate)
    return {
        "passed": all(check.passed for check in made),
        "failures": [check.failure() for check in made if not check.passed],
        "checks": [check.as_dict() for check in made],
        "metrics": metrics(figures),
    }


def metrics(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the registry and the manifest keep of the figures."""
    held = figures.get("held_out", {})
    sure = figures.get("confidence") or {}
    speeds = figures.get("speed", {})
    return {
        "accuracy": {name: v["accuracy"] for name, v in held.get("intents", {}).items()},
        "common": _accuracy(figures, "common"),
        "rare": _accuracy(figures, "rare"),
        "perplexity": figures.get("perplexity"),
        "ece": sure.get("ece"),
        "auroc": sure.get("auroc"),
        "prefill_tokens_per_s": speeds.get("prefill_tokens_per_s"),
        "decode_tokens_per_s": speeds.get("decode_tokens_per_s"),
        "bytes": figures.get("weight_bytes"),
        "parameters": figures.get("parameters"),
    }
