"""The LoRA adapters that requests may name, and who may name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from weir.settings import ModelSettings, PriceSettings
from weir.tenancy import Caller


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter of ``model``. ``key``: its name and the version of its files, under which engines
    know it; ``source``: where replicas find it. ``cold``: see
    :attr:`weir.settings.ModelSettings.on_cold_adapter`; ``price``: None is the model's."""

    model: str
    name: str
    key: str
    source: str
    tenants: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    cold: Literal["wait", "base", "refuse"] = "wait"
    price: PriceSettings | None = None

    @property
    def id(self) -> str:
        """The name that clients are told."""
        return f"{self.model}:{self.name}"

    def is_for(self, caller: Caller) -> bool:
        """Whether the caller may use it."""
        return caller.sees_adapter(self.model, (self.id, *self.aliases), self.tenants)


class AdapterNames:
    """All adapters of all models, by each name that a request may call them.

    ``digests``: of each model, its adapters' versions by name; without one the key is the name.
    """

    def __init__(
        self,
        models: Iterable[ModelSettings],
        digests: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._named: dict[str, Adapter] = {}
        for model in models:
            versions = (digests or {}).get(model.name, {})
            for made in _adapters(model, versions):
                for name in (made.id, *made.aliases):
                    self._named[name] = made

    def find(self, name: str, caller: Caller) -> Adapter | None:
        """The adapter of that name; None where there is none for this caller."""
        adapter = self._named.get(name)
        return adapter if adapter is not None and adapter.is_for(caller) else None

    def visible(self, caller: Caller) -> list[tuple[str, Adapter]]:
        """Every name that the caller may use."""
        return [(name, found) for name, found in self._named.items() if found.is_for(caller)]


def _adapters(model: ModelSettings, digests: Mapping[str, str]) -> Iterable[Adapter]:
    for settings in model.adapters:
        digest = digests.get(settings.name)
        yield Adapter(
            model.name,
            settings.name,
            f"{settings.name}@{digest}" if digest else settings.name,
            settings.source,
            frozenset(settings.tenants),
            settings.aliases,
            model.on_cold_adapter,
            settings.price,
        )
