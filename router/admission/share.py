"""How far a class or a tenant may fill a replica."""

from __future__ import annotations

from dataclasses import dataclass

from weir.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Share:
    """A part (0, 1] of each limit of a replica, everybody's work counted: trunk reservation, which
    leaves the rest free for more urgent classes.

    ``crowd_out``: a long prompt that is cached nowhere may push out prefixes that are in use.
    """

    prefill: float = 1.0
    running: float = 1.0
    kv: float = 1.0
    crowd_out: bool = False

    def __post_init__(self) -> None:
        for name in ("prefill", "running", "kv"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"share.{name}: expected a number above 0, at most 1")

    def narrowed(self, other: Share) -> Share:
        """The smaller part of each."""
        return Share(
            min(self.prefill, other.prefill),
            min(self.running, other.running),
            min(self.kv, other.kv),
            self.crowd_out and other.crowd_out,
        )


FULL_SHARE = Share()
#: What ageing gives: everything, without regard to what is cached.
AGED_SHARE = Share(crowd_out=True)
