"""How much memory bodies may take while they are received and read."""

from __future__ import annotations

from deployments.gateway.request import Door
from weir.errors import OverloadedError, RateLimitError

_MIB = 1024 * 1024
#: Smaller bodies are not counted: each connection has a buffer of that order anyway.
COUNTED_FROM_BYTES = 64 * 1024


class BodyRoom:
    """Counts the bytes that clients have announced, from before their first one until the body is
    checked: a client that sends slowly, or not at all, holds what it announced. What waits in a
    queue afterwards has bounds of its own (``admission.classes.NAME.max_bytes``)."""

    def __init__(self, most_bytes: int = 512 * _MIB, tenant_bytes: int = 128 * _MIB) -> None:
        self._most_bytes = most_bytes
        self._tenant_bytes = tenant_bytes
        self._held: dict[str, int] = {}

    @property
    def held_bytes(self) -> int:
        """Of all tenants."""
        return sum(self._held.values())

    def take(self, tenant: str, size: int) -> int:
        """Room for a body of that size; to be given back. Returns how much was taken.

        Raises:
            RateLimitError: the tenant has too many large bodies under way.
            OverloadedError: all tenants together have.
        """
        if size < COUNTED_FROM_BYTES:
            return 0
        held = self._held.get(tenant, 0)
        if held and held + size > self._tenant_bytes:
            raise RateLimitError(
                "Too many of your large requests are being received.", retry_after_s=1.0
            )
        if self._held and self.held_bytes + size > self._most_bytes:
            raise OverloadedError("Too many large requests are being received.", retry_after_s=1.0)
        self._held[tenant] = held + size
        return size

    def give_back(self, tenant: str, size: int) -> None:
        """The body is checked, or will not come."""
        if size:
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]


def announced_bytes(door: Door, most: int) -> int:
    """How long a body will be, as far as its headers say; ``most`` where they do not."""
    length = door.header(b"content-length")
    if length is not None and length.isdigit():
        return min(int(length[:16]), most)
    return most if door.header(b"transfer-encoding") is not None else 0
