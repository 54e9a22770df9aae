"""What every section of the settings is made of, and how it says what is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

#: Keys and positions that lead to a value: ``("models", 0, "source")``.
Place = tuple[str | int, ...]
#: pydantic's name for what :func:`refuse` tells; its message stands as it is.
FINDING: Final = "finding"


class Section(BaseModel):
    """A mapping of the settings: unknown keys are refused, and nothing can be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: where, and what was expected.

    ``spoils``: so many sections above the place cannot be judged without it. A policy that does not
    exist spoils its section, because nobody knows which parameters it should have.
    """

    place: Place
    message: str
    spoils: int = 0

    def below(self, *place: str | int) -> Finding:
        """The same, seen from the section that has it at ``place``."""
        return Finding((*place, *self.place), self.message, self.spoils)


def refuse(findings: Iterable[Finding]) -> None:
    """For validators: all findings at once, each at its own place below the validator's.

    Raises:
        ValidationError: there are any. pydantic adds them to whatever else is wrong.
    """
    told = [
        InitErrorDetails(
            type=PydanticCustomError(
                FINDING, "{message}", {"message": each.message, "spoils": each.spoils}
            ),
            loc=each.place,
            input=None,
        )
        for each in findings
    ]
    if told:
        raise ValidationError.from_exception_data("settings", told)


def nearest(given: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where some known name is like the given one, or nothing."""
    like = difflib.get_close_matches(given, sorted(known), n=1)
    return f"; did you mean {like[0]!r}?" if like else ""


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """What to say of a name that nothing has."""
    return f"no {kind} named {given!r}{nearest(given, known)}"
