"""Everything that is wrong with a tree of settings, at once.

pydantic looks at a section as a whole only when all of its keys are right, and at what sections say
of each other only when all of them are. So a tree is read in rounds: what is wrong is told and left
out, and what remains is read again, until nothing is wrong. What the rooms have to say (of files,
for instance) they say of what remains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from weir.settings.outline import keys_at
from weir.settings.parts import Parts
from weir.settings.references import Known, Names
from weir.settings.section import FINDING, Finding, Place, nearest
from weir.settings.tree import Settings

Further = Callable[[Settings], Iterable[Finding]]
#: Stands for the models where none of those given can be read, so that the rest can be.
_STAND_IN: Final = {"name": "stand-in", "source": "stand-in"}
_UNKNOWN_KEY: Final = ("extra_forbidden", "unexpected_keyword_argument")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a settings file: where, and what was expected."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def examine(
    tree: Mapping[str, Any], parts: Parts | None = None, further: Further = lambda _: ()
) -> tuple[Settings | None, tuple[Problem, ...]]:
    """The settings of a tree, or everything that is wrong with it.

    ``parts``: what policies, rules and limits are checked against (None: they are not);
    ``further``: what else has to be said of settings that can be read.
    """
    known = Known(parts, Names.of_tree(tree))
    left = _Left(tree)
    while True:
        try:
            settings = Settings.model_validate(left.tree, context=known)
        except ValidationError as error:
            errors = _without_what_follows(error)
        else:
            break
        left.tell(errors)
        if not left.leave_out(errors):
            return None, left.problems()
    left.tell_findings(further(settings))
    problems = left.problems()
    return (None if problems else settings), problems


@dataclass(slots=True)
class _Left:
    """What is left of a tree after the rounds so far."""

    whole: Mapping[str, Any]
    tree: Any = None
    dropped: set[Place] = field(default_factory=set)
    #: Of each list of which something was dropped, the positions of what is left.
    kept: dict[Place, list[int]] = field(default_factory=dict)
    told: list[tuple[Place, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = self.whole

    def tell(self, errors: Iterable[Any]) -> None:
        """What pydantic says, without what follows from something that was left out."""
        for error in errors:
            place = self._given(error["loc"])
            if place is not None and not self._is_spoilt(place):
                self.told.append((place, _message(error, place)))

    def tell_findings(self, findings: Iterable[Finding]) -> None:
        """What was found in the settings that are left."""
        for finding in findings:
            if (place := self._given(finding.place)) is not None:
                self.told.append((place, finding.message))

    def problems(self) -> tuple[Problem, ...]:
        """What was told, each once, in the order of the tree."""
        ordered = sorted(self.told, key=lambda each: self._position(each[0]))
        return tuple(dict.fromkeys(Problem(path_of(place), said) for place, said in ordered))

    def _position(self, place: Place) -> list[int]:
        node: Any = self.whole
        position = []
        for key in place:
            if isinstance(node, Mapping) and key in node:
                position.append(list(node).index(str(key)))
                node = node[key]
            elif isinstance(node, list) and isinstance(key, int) and key < len(node):
                position.append(key)
                node = node[key]
            else:  # what is missing comes first
                position.append(-1)
                break
        return position

    def leave_out(self, errors: Iterable[Any]) -> bool:
        """Read on without what is wrong; False: there is nothing more that could be left out.

        A section is left out for what it lacks only when nothing else is wrong, because what else
        it has is still to be read.
        """
        placed = [(self._given(each["loc"]), each) for each in errors]
        targets = [self._target(error, place) for place, error in placed if place]
        own = {there for there, lacks in targets if not lacks} - self.dropped
        fresh = own or {there[:-1] for there, lacks in targets if lacks} - self.dropped - {()}
        self.dropped |= fresh
        self.kept.clear()
        self.tree = self._without(self.whole, ())
        if not self.tree.get("models"):
            self.tree["models"] = [_STAND_IN]
            self.kept["models",] = []
        return bool(fresh)

    def _target(self, error: Mapping[str, Any], place: Place) -> tuple[Place, bool]:
        """What an error is about, as far as that is in the tree; whether it is missing there."""
        if error["type"] == FINDING:
            place = place[: len(place) - int(error["ctx"]["spoils"])]
        there = self._there(place)
        return there, there == place and (error["type"] == "missing" or there in self.dropped)

    def _there(self, place: Place) -> Place:
        """The place, as far as the whole tree has it. (A missing key counts as its last part.)"""
        node: Any = self.whole
        for depth, key in enumerate(place):
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                return place if depth + 1 == len(place) else place[:depth]
        return place

    def _without(self, node: Any, place: Place) -> Any:
        if isinstance(node, Mapping):
            return {
                key: self._without(value, (*place, key))
                for key, value in node.items()
                if (*place, key) not in self.dropped
            }
        if not isinstance(node, list):
            return node
        kept = [n for n in range(len(node)) if (*place, n) not in self.dropped]
        self.kept[place] = kept
        return [self._without(node[n], (*place, n)) for n in kept]

    def _given(self, place: Place) -> Place | None:
        """Where in the whole tree something stands that is at ``place`` of what is left. None: it
        is in no tree, but stands in for something."""
        whole: Place = ()
        for part in place:
            positions = self.kept.get(whole)
            if positions is not None and isinstance(part, int):
                if part >= len(positions):
                    return None
                part = positions[part]
            whole = (*whole, part)
        return whole

    def _is_spoilt(self, place: Place) -> bool:
        """Whether something was left out here, or in the section that this is."""
        return any(each[: len(place)] == place for each in self.dropped)


def _without_what_follows(error: ValidationError) -> list[Any]:
    """A list whose items are all wrong is also "too short"; the items' own problems say it."""
    errors = error.errors()
    above = {each["loc"][:depth] for each in errors for depth in range(len(each["loc"]))}
    return [each for each in errors if each["type"] != "too_short" or each["loc"] not in above]


def _message(error: Mapping[str, Any], place: Place) -> str:
    if error["type"] == FINDING:
        return str(error["msg"])
    if error["type"] in _UNKNOWN_KEY:
        return f"unknown key{nearest(str(place[-1]), keys_at(place[:-1]))}"
    if error["type"] == "missing":
        return "missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    message = re.sub(r"\b(t|T)uple\b", "list", message)
    message = message[:1].lower() + message[1:]
    given = error.get("input")
    if isinstance(given, str | int | float | bool) or given is None:
        return f"{message} (given: {given!r})"
    return message


def path_of(place: Place) -> str:
    """``models[0].source``."""
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else (f".{part}" if path else part)
    return path or "(top level)"
