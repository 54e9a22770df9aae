"""Names in the settings that stand for something elsewhere in the settings.

A model, a tenant or a priority class is defined in one place and named in many. Each name is looked
up here, whatever the section it stands in, so that every misspelt one is told with its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from weir.settings.section import Finding, Place, unknown

if TYPE_CHECKING:
    from weir.settings.parts import Parts
    from weir.settings.tenants import TenantSettings
    from weir.settings.tree import ModelSettings, Settings

#: Made by ``weir up`` where the settings define no tenants.
DEMO_TENANT: Final = "demo"


@dataclass(frozen=True, slots=True)
class Names:
    """What is defined: by the settings, or in a file of which a part could not be read.

    ``tenants`` may be in the database as well; only where the file defines some is a name that it
    does not define taken for a mistake.
    """

    models: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    classes: frozenset[str] = frozenset()
    adapters: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    @staticmethod
    def of_tree(tree: Mapping[str, Any]) -> Names:
        """Of a tree as it was read, whatever else is wrong with it."""
        models = _mappings(tree.get("models"))
        adapters = {
            f"{model.get('name')}:{adapter}"
            for model in models
            for adapter in _texts(model.get("adapters"), "name")
        }
        return Names(
            models=_texts(models, "name"),
            tenants=_texts(tree.get("tenants"), "id"),
            classes=_keys(tree.get("admission"), "classes"),
            adapters=frozenset(adapters),
            services=_keys(tree.get("features"), "services"),
        )

    def and_of(self, settings: Settings) -> Names:
        """With those of the settings."""
        models = settings.models
        return Names(
            models=self.models | {model.name for model in models},
            tenants=self.tenants | {tenant.id for tenant in settings.tenants},
            classes=self.classes | {each.name for each in settings.admission.classes},
            adapters=self.adapters | {f"{m.name}:{a.name}" for m in models for a in m.adapters},
            services=self.services | set(settings.features.services),
        )


@dataclass(frozen=True, slots=True)
class Known:
    """What a check of the settings knows beside them: pydantic's validation context."""

    parts: Parts | None = None
    names: Names = field(default_factory=Names)


def references(settings: Settings, known: Known) -> Iterator[Finding]:
    """Every name that nothing has, and every name that is given twice."""
    names = known.names.and_of(settings)
    yield from _twice("models", [model.name for model in settings.models], "name")
    yield from _twice("tenants", [tenant.id for tenant in settings.tenants], "id")
    yield from _shared_keys(settings.tenants)
    weighted = settings.admission.tenant_weights
    yield from _tenants(names, weighted, ("admission", "tenant_weights"))
    asked = settings.batches.priority_class
    if asked is not None and asked not in names.classes:
        said = unknown("priority class", asked, names.classes)
        yield Finding(("batches", "priority_class"), said)
    # The tenants of ``server.admin.oidc`` may be made later: nobody is let in before.
    for number, tenant in enumerate(settings.tenants):
        for finding in _of_tenant(tenant, names):
            yield finding.below("tenants", number)
    students = {m.name: m.fallback.student if m.fallback else None for m in settings.models}
    for number, model in enumerate(settings.models):
        for finding in _of_model(model, names, students):
            yield finding.below("models", number)
    yield from _adapter_names(settings.models)
    own = settings.slo.classes
    yield from _each("priority class", own, names.classes, ("slo", "classes"))
    for number, rule in enumerate(settings.features.enrich):
        place = ("features", "enrich", number)
        yield from _each("model", rule.models, names.models, (*place, "models"))
        yield from _tenants(names, rule.tenants, (*place, "tenants"))


def _of_tenant(tenant: TenantSettings, names: Names) -> Iterator[Finding]:
    yield from _each("model", tenant.models, names.models, ("models",))
    yield from _each("priority class", tenant.classes, names.classes, ("classes",))
    yield from _each("model", tenant.model_quotas, names.models, ("model_quotas",))
    yield from _each("adapter", tenant.adapters, names.adapters, ("adapters",))
    yield from _each("service", tenant.features, names.services, ("features",))


def _shared_keys(tenants: Sequence[TenantSettings]) -> Iterator[Finding]:
    holders: dict[str, str] = {}
    for number, tenant in enumerate(tenants):
        for position, digest in enumerate(tenant.key_sha256):
            if (holder := holders.setdefault(digest, tenant.id)) != tenant.id:
                place = ("tenants", number, "key_sha256", position)
                yield Finding(place, f"{digest[:8]}... is a key of {holder!r} too")


def _of_model(
    model: ModelSettings, names: Names, students: Mapping[str, str | None]
) -> Iterator[Finding]:
    factors = ("price", "class_factors")
    yield from _each("priority class", model.price.class_factors, names.classes, factors)
    for number, adapter in enumerate(model.adapters):
        yield from _tenants(names, adapter.tenants, ("adapters", number, "tenants"))
        if adapter.price is not None:
            paid = adapter.price.class_factors
            where = ("adapters", number, *factors)
            yield from _each("priority class", paid, names.classes, where)
    fallback = model.fallback
    if fallback is None:
        return
    place: Place = ("fallback", "student")
    if fallback.student not in names.models:
        yield Finding(place, unknown("model", fallback.student, names.models))
    elif students.get(fallback.student) is not None:
        yield Finding(place, f"{fallback.student!r} has a fallback of its own")
    scales = model.autoscaling is not None or any(pool.autoscaling for pool in model.pools)
    if fallback.capacity.max_share and not scales:
        place = ("fallback", "capacity", "max_share")
        expected = "needs autoscaling bounds of the model or of a pool: else nothing decides"
        yield Finding(place, expected)
    for name, kind in fallback.kinds().items():
        # What nobody wrote may name a class that a file with classes of its own does not have.
        if kind.classes != type(kind).model_fields["classes"].default:
            place = ("fallback", name, "classes")
            yield from _each("priority class", kind.classes, names.classes, place)


def _adapter_names(models: Sequence[ModelSettings]) -> Iterator[Finding]:
    taken = {model.name for model in models}
    for number, model in enumerate(models):
        place: Place = ("models", number, "adapters")
        own = [adapter.name for adapter in model.adapters]
        yield from (each.below(*place[:2]) for each in _twice("adapters", own, "name"))
        for count, adapter in enumerate(model.adapters):
            for position, alias in enumerate(adapter.aliases):
                if alias in taken:
                    yield Finding((*place, count, "aliases", position), f"{alias!r} is taken")
                taken.add(alias)


def _twice(where: str, names: Sequence[str], key: str) -> Iterator[Finding]:
    for number, name in enumerate(names):
        if name in names[:number]:
            yield Finding((where, number, key), f"{name!r} is defined twice")


def _each(
    kind: str, given: Iterable[str], known: frozenset[str], place: Place
) -> Iterator[Finding]:
    """``given``: a list, or a mapping whose keys are the names."""
    for number, name in enumerate(given):
        if name not in known:
            last = name if isinstance(given, Mapping) else number
            yield Finding((*place, last), unknown(kind, name, known))


def _tenants(names: Names, given: Iterable[str], place: Place) -> Iterator[Finding]:
    if names.tenants - {DEMO_TENANT}:
        yield from _each("tenant", given, names.tenants, place)


def _texts(items: Any, key: str) -> frozenset[str]:
    given = (item.get(key) for item in _mappings(items))
    return frozenset(text for text in given if isinstance(text, str))


def _keys(section: Any, key: str) -> frozenset[str]:
    named = section.get(key) if isinstance(section, Mapping) else None
    return frozenset(map(str, named)) if isinstance(named, Mapping) else frozenset()


def _mappings(items: Any) -> list[Mapping[str, Any]]:
    return [each for each in items if isinstance(each, Mapping)] if isinstance(items, list) else []
