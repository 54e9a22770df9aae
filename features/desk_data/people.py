"""Customers: who they are, how popular they are, and the words they are made of."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.desk_data.spec import DeskDataSpec
from features.keys import entity_key
from weir.samples.words import TIERS, Split, word

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.object_]

FIRST_ENTITY_ID = 10_000
COUNTRIES = ("DE", "FR", "NL", "IT", "ES", "PL", "AT", "SE", "CZ", "DK")
_COUNTRY_SHARES = (0.26, 0.17, 0.11, 0.1, 0.1, 0.09, 0.06, 0.05, 0.03, 0.03)
_TIER_SHARES = (0.42, 0.3, 0.19, 0.09)
_WORDS = 2_000


@dataclass(frozen=True, slots=True)
class People:
    """All customers, one element each; a customer's number is its index."""

    keys: Words
    tenants: Ints
    """Index into the spec's tenants."""
    entity_ids: Words
    heldout: npt.NDArray[np.bool_]
    names: Words
    countries: Words
    tiers: Ints
    """Index into :data:`weir.samples.words.TIERS`."""
    points: Ints
    since_days: Ints
    ranks: Ints
    """Popularity: 1 is the customer that calls most."""
    weights: Floats
    """Share of the traffic; they add up to 1."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True, slots=True)
class WordPool:
    """Invented words that belong to either split."""

    train: Words
    heldout: Words

    def draw(self, rng: np.random.Generator, heldout: npt.NDArray[np.bool_]) -> Words:
        """One word for each element, from the split that it belongs to."""
        trained = self.train[rng.integers(len(self.train), size=len(heldout))]
        held = self.heldout[rng.integers(len(self.heldout), size=len(heldout))]
        return np.where(heldout, held, trained)


def word_pool(seed: int) -> WordPool:
    """The words of a data set."""
    rng = random.Random(f"{seed}/words")

    def words(split: Split) -> Words:
        return np.array([word(rng, split) for _ in range(_WORDS)], dtype=object)

    return WordPool(words("train"), words("heldout"))


def make_people(spec: DeskDataSpec, pool: WordPool) -> People:
    """The customers of a data set."""
    rng = np.random.default_rng((spec.seed, 1))
    count, sizes = spec.customers, spec.sizes()
    tenants = np.repeat(np.arange(len(sizes)), sizes)
    entity_ids = np.concatenate([FIRST_ENTITY_ID + np.arange(size) for size in sizes]).astype(str)
    names = [tenant.tenant_id for tenant in spec.tenants]
    keys = [entity_key(names[t], e) for t, e in zip(tenants, entity_ids, strict=True)]
    heldout = rng.random(count) < spec.heldout_share
    ranks = rng.permutation(count) + 1
    weights = ranks.astype(np.float64) ** -spec.zipf_exponent
    return People(
        keys=np.array(keys, dtype=object),
        tenants=tenants,
        entity_ids=entity_ids.astype(object),
        heldout=heldout,
        names=pool.draw(rng, heldout) + " " + pool.draw(rng, heldout),
        countries=rng.choice(np.array(COUNTRIES, dtype=object), size=count, p=_COUNTRY_SHARES),
        tiers=rng.choice(len(TIERS), size=count, p=_TIER_SHARES),
        points=rng.integers(10, 5_000, size=count),
        since_days=rng.integers(90, 2_500, size=count),
        ranks=ranks,
        weights=weights / weights.sum(),
    )
