"""Entity keys: injective, and never outside the tenant's own namespace."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.keys import MAX_ENTITY_ID_CHARS, entity_key, split_entity_key

TENANTS = st.sampled_from(("acme", "beta", "a", "acme-2"))
IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
TRICKY = st.lists(st.sampled_from(("/", "%", "%2F", "%25", "beta", "2F", "a")), min_size=1).map(
    "".join
)


def test_the_plain_case_reads_well() -> None:
    assert entity_key("acme", "10023") == "acme/10023"


@given(TENANTS, IDS | TRICKY)
def test_a_key_gives_back_its_parts(tenant: str, entity: str) -> None:
    assert split_entity_key(entity_key(tenant, entity)) == (tenant, entity)


@given(TENANTS, TENANTS, IDS | TRICKY, IDS | TRICKY)
def test_two_tenants_never_share_a_key(one: str, two: str, mine: str, theirs: str) -> None:
    if one != two:
        assert entity_key(one, mine) != entity_key(two, theirs)


def test_naming_another_tenants_key_stays_in_the_own_namespace() -> None:
    assert split_entity_key(entity_key("acme", "beta/10023"))[0] == "acme"
    assert entity_key("acme", "../beta/10023") != entity_key("beta", "10023")


@pytest.mark.parametrize(
    ("tenant", "entity"),
    [("", "1"), ("acme", ""), ("acme", "x" * (MAX_ENTITY_ID_CHARS + 1)), ("acme", "\ud800")],
)
def test_what_cannot_be_a_key_is_refused(tenant: str, entity: str) -> None:
    with pytest.raises(ValueError):
        entity_key(tenant, entity)


@pytest.mark.parametrize("text", ["acme", "/1", "acme/", "acme/a/b", "acme/%zz%2f/x"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        split_entity_key(text)
