"""The index of one model's versions: which there are, and which is in which stage. Pure.

An index is immutable and numbered; a change makes the next one. The store's only job is that no
two writers make the same number (:mod:`weir.registry.store`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from weir.errors import ConfigError


class Stage(StrEnum):
    """At most one version is canary, at most one is live."""

    CANDIDATE = "candidate"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"


_NEXT = {Stage.CANDIDATE: Stage.CANARY, Stage.CANARY: Stage.LIVE}


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a model. ``digest``: SHA-256 of its manifest, which has those of its files,
    so it stands for all its bytes. ``added_at``: seconds since the epoch."""

    name: str
    number: int
    digest: str
    stage: Stage
    label: str
    added_at: float
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(frozen=True, slots=True)
class Index:
    """All versions of one model, oldest first. ``was_live``: numbers in the order in which they
    became live, the present one last."""

    name: str
    sequence: int = 0
    versions: tuple[Version, ...] = ()
    was_live: tuple[int, ...] = ()

    def find(self, which: Stage | int) -> Version:
        """The version of that number, or in that stage (the newest of several).

        Raises:
            ConfigError: there is none.
        """
        for version in reversed(self.versions):
            if which in (version.number, version.stage):
                return version
        known = ", ".join(f"{v.number} ({v.stage.value})" for v in self.versions) or "none"
        kind = "version" if isinstance(which, int) else "stage"
        raise ConfigError(f"{self.name}: nothing of {kind} {which}; versions: {known}")

    def with_version(self, version: Version) -> Index:
        """One more version, numbered by the caller as ``next_number``.

        Raises:
            ConfigError: the same bytes are there already.
        """
        for known in self.versions:
            if known.digest == version.digest:
                raise ConfigError(
                    f"{self.name}: the same files are version {known.number} "
                    f"({known.stage.value}) already"
                )
        return self._next(versions=(*self.versions, version))

    @property
    def next_number(self) -> int:
        return max((v.number for v in self.versions), default=0) + 1

    def promoted(self, number: int, to: Stage | None = None) -> Index:
        """``number`` one stage on (candidate, canary, live), or to the stage given. Who was there
        goes: the canary back to candidate, the live one to retired.

        Raises:
            ConfigError: no such version, or it is there already, or it has no next stage.
        """
        version = self.find(number)
        stage = to or _NEXT.get(version.stage)
        if stage is None:
            raise ConfigError(
                f"{version.reference} is {version.stage.value}: say to which stage it should go"
            )
        if stage is version.stage:
            raise ConfigError(f"{version.reference} is {stage.value} already")
        return self._staged(number, stage)

    def rolled_back(self) -> Index:
        """The version that was live before the present one is live again.

        Raises:
            ConfigError: there was none.
        """
        live = {v.number for v in self.versions if v.stage is Stage.LIVE}
        earlier = tuple(n for n in self.was_live if n not in live)
        if not earlier:
            raise ConfigError(f"{self.name}: no earlier version was live")
        # The one rolled back from leaves the history: a second rollback must not return to it.
        return replace(self._staged(earlier[-1], Stage.LIVE), was_live=earlier)

    def _staged(self, number: int, stage: Stage) -> Index:
        displaced = Stage.RETIRED if stage is Stage.LIVE else Stage.CANDIDATE
        unique = stage in (Stage.CANARY, Stage.LIVE)
        versions = []
        for version in self.versions:
            if version.number == number:
                versions.append(replace(version, stage=stage))
            elif unique and version.stage is stage:
                versions.append(replace(version, stage=displaced))
            else:
                versions.append(version)
        was_live = self.was_live
        if stage is Stage.LIVE:
            was_live = (*(n for n in was_live if n != number), number)
        elif was_live and was_live[-1] == number:
            was_live = was_live[:-1]  # it is live no more
        return self._next(versions=tuple(versions), was_live=was_live)

    def _next(self, **changes: Any) -> Index:
        return replace(self, sequence=self.sequence + 1, **changes)


def encode_index(index: Index, writer: str) -> bytes:
    """JSON; ``writer`` is unique to the attempt, so that its maker knows it again."""
    return json.dumps({"writer": writer, **asdict(index)}, indent=1).encode() + b"\n"


def decode_index(content: bytes, where: str) -> tuple[Index, str]:
    """The index and its writer.

    Raises:
        ConfigError: it is not an index.
    """
    try:
        data = json.loads(content)
        versions = tuple(Version(**{**v, "stage": Stage(v["stage"])}) for v in data["versions"])
        index = Index(data["name"], int(data["sequence"]), versions, tuple(data["was_live"]))
        return index, str(data["writer"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: not a registry index: {error!r}") from error
