"""Templates, placement, and the built-in customer block."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from features.enrichment import Edit, TemplateFailedError, build_template, place
from features.enrichment.placement import Placement, join
from features.online import FeatureRow
from weir.samples.render import render_context
from weir.samples.world import make_customer

TODAY = dt.date(2026, 3, 17)


def row(**values: Any) -> FeatureRow:
    return FeatureRow("hit", values, views={"v": "fresh"})


def desk_row(index: int, **changes: Any) -> tuple[FeatureRow, str]:
    """A customer's features, and the block that the teacher was trained on."""
    customer = make_customer("test", index, "heldout")
    orders = [
        {
            "id": order.order_id,
            "item": order.item,
            "status": order.status,
            "placed": order.ordered.isoformat(),
            "arrives": order.arrives.isoformat(),
            "price": order.price_eur,
        }
        for order in customer.orders
    ]
    values = {
        "name": customer.name,
        "tier": customer.tier,
        "loyalty_points": customer.points,
        "orders": json.dumps(orders),
        "today": customer.today.isoformat(),
    }
    return row(**{**values, **changes}), render_context(customer)


@pytest.mark.parametrize("index", range(20))
def test_the_desks_block_is_the_one_of_its_training(index: int) -> None:
    features, block = desk_row(index)
    assert build_template("support_desk").render(features, TODAY) == block


def test_without_a_clock_of_its_own_the_block_has_todays_date() -> None:
    features, _ = desk_row(1, today=None)
    assert "Today is 17 March." in build_template("support_desk").render(features, TODAY)


@pytest.mark.parametrize("name", ["name", "tier", "loyalty_points", "orders"])
def test_without_a_fact_there_is_no_block(name: str) -> None:
    features, _ = desk_row(1, **{name: None})
    assert build_template("support_desk").render(features, TODAY) == ""


@pytest.mark.parametrize("orders", ["", "nonsense", '[{"id":1}]', "[1]", '{"a":1}', "7"])
def test_orders_that_are_none_are_told(orders: str) -> None:
    features, _ = desk_row(1, orders=orders)
    with pytest.raises(TemplateFailedError):
        build_template("support_desk").render(features, TODAY)


def test_a_template_of_ones_own() -> None:
    template = build_template(
        "{% for o in orders | fromjson %}{{ o.id }} {% endfor %}{{ tier }} {{ views.v }}"
        " {{ today.year }} {{ features | length }}"
    )
    text = template.render(row(tier="gold", orders='[{"id":5},{"id":6}]'), TODAY)
    assert text == "5 6 gold fresh 2026 2"


@pytest.mark.parametrize(
    "source",
    [
        "{{ unknown }}",
        "{{ tier / 0 }}",
        "{{ 1 / 0 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ orders | fromjson }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
    ],
)
def test_what_does_not_fit_or_is_not_allowed_is_told(source: str) -> None:
    with pytest.raises(TemplateFailedError):
        build_template(source).render(row(tier="gold", orders="no json"), TODAY)


@pytest.mark.parametrize(
    ("source", "message"), [("{% if %}", "line 1"), ("suport_desk", "known: support_desk")]
)
def test_no_template_is_refused(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_template(source)


S, D, U, A = "system", "developer", "user", "assistant"


@pytest.mark.parametrize(
    ("roles", "placement", "edit"),
    [
        ([S, U], "after_system", Edit(0, "append")),
        ([S, D, U, S], "after_system", Edit(1, "append")),
        ([U], "after_system", Edit(0, "insert")),
        ([S, S, U], "before_system", Edit(0, "prepend")),
        ([U], "before_system", Edit(0, "insert")),
        ([S, U, A, U], "last_user", Edit(3, "prepend")),
        ([S, U, A], "last_user", Edit(1, "prepend")),
        ([S, A], "last_user", Edit(0, "append")),
    ],
)
def test_where_the_text_goes(roles: list[str], placement: Placement, edit: Edit) -> None:
    assert place(roles, placement) == edit


def test_text_has_lines_of_its_own() -> None:
    assert join("append", "content", "text") == "content\ntext"
    assert join("prepend", "content", "text") == "text\ncontent"
