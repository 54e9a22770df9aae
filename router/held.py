"""How many leading blocks of one prompt each replica holds: the answer of the prefix index.

Most of a fleet holds the same beginning (a system prompt, a tenant's context), and a few replicas
hold more. What many hold is kept between look-ups (:class:`Common`), so that a look-up and a
routing decision do work for the few only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

_NOTHING: dict[str, int] = {}


class Common:
    """Leading blocks that many replicas hold, by replica; never changed after it is made.

    ``depths``: the distinct numbers in it. ``further``: what follows when a longer beginning is
    held by many too, by the bits of its holders and its depth; filled by the prefix index.
    """

    __slots__ = ("_column", "_ids", "blocks", "depths", "further", "most")

    def __init__(self, blocks: dict[str, int]) -> None:
        self.blocks = blocks
        self.depths = tuple({*blocks.values()})
        self.most = max(self.depths, default=0)
        self.further: dict[tuple[int, int], Common] = {}
        self._ids: Sequence[str] = ()
        self._column: list[int] = []

    def column(self, ids: Sequence[str]) -> list[int]:
        """The blocks of each of ``ids``; to be read only. Kept for as long as it is asked for with
        the same sequence, which a fleet's ids are."""
        if ids is not self._ids:
            self._ids, blocks = ids, self.blocks
            self._column = [blocks.get(replica_id, 0) for replica_id in ids]
        return self._column


NOBODY = Common(_NOTHING)


class Held(Mapping[str, int]):
    """Replica id → leading blocks (absent: none). ``few`` goes before ``common``, and says no less
    than it of any replica."""

    __slots__ = ("_every", "common", "few")

    def __init__(self, common: Common, few: Mapping[str, int]) -> None:
        self.common = common
        self.few = few
        self._every: Mapping[str, int] | None = None

    @classmethod
    def of(cls, blocks: Mapping[str, int]) -> Held:
        """The same as one mapping."""
        return cls(NOBODY, blocks)

    @property
    def every(self) -> Mapping[str, int]:
        """Everything as one plain mapping, for whoever asks it often."""
        if self._every is None:
            common, few = self.common.blocks, self.few
            self._every = {**common, **few} if common and few else common or few
        return self._every

    @property
    def most(self) -> int:
        """What the best holder has."""
        return max(self.common.most, max(self.few.values())) if self.few else self.common.most

    def blocks(self, replica_id: str) -> int:
        """What one replica has."""
        found = self.few.get(replica_id)
        return self.common.blocks.get(replica_id, 0) if found is None else found

    def depths(self) -> set[int]:
        """Numbers of blocks, among them each that is anybody's."""
        return {*self.common.depths, *self.few.values()}

    def __bool__(self) -> bool:
        return bool(self.few or self.common.blocks)

    def __getitem__(self, replica_id: str) -> int:
        return self.every[replica_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self.every)

    def __len__(self) -> int:
        return len(self.every)


NOTHING_HELD = Held.of(_NOTHING)
