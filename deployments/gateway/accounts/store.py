"""Where it is counted what tenants use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deployments.gateway.accounts.amounts import Ask, Reply, Spent
from deployments.gateway.accounts.book import Book
from deployments.gateway.accounts.known import Known


class Store(Protocol):
    """What an account needs of it."""

    async def reserve(self, ask: Ask) -> Reply:
        """Reserve everything that is asked for, or nothing. Cancelled, it reserves nothing."""
        ...

    def known(self, tenant: str) -> Known | None:
        """What the store has told so far; None if its answer is not worth waiting for elsewhere:
        it answers at once, or not at all."""
        ...

    def settle(self, tenant: str, spent: Sequence[Spent], together: bool = False) -> None:
        """Replace reservations by what was used, once, and without waiting for it. ``together``:
        with what else of the tenant's ends within a moment, or before the next :meth:`hurry`."""
        ...

    def hurry(self, tenant: str) -> None:
        """What is kept to be settled together is settled now."""
        ...


class LocalStore:
    """Of a gateway that is alone: in its memory, exact, and forgotten with it."""

    def __init__(self, book: Book) -> None:
        self.book = book

    async def reserve(self, ask: Ask) -> Reply:
        return self.book.reserve(ask)

    def known(self, tenant: str) -> Known | None:
        return None

    def settle(self, tenant: str, spent: Sequence[Spent], together: bool = False) -> None:
        self.book.settle(tenant, spent)

    def hurry(self, tenant: str) -> None:
        """Nothing is kept."""
