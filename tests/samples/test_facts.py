"""The checker: right answers pass however they are worded, wrong ones fail."""

import dataclasses
import datetime as dt

import pytest

from weir import samples
from weir.customer_block import OrderLine, context_block
from weir.samples.facts import Fact, money, parse
from weir.samples.world import Order


def _only(intent: str, seed: int = 3) -> samples.Example:
    return next(samples.requests(seed, 1, intents=(intent,)))


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("Order 48213 is on hold.", {Fact("order", "48213"), Fact("status", "on hold")}),
        ("It arrives on 3 March.", {Fact("date", "3 March")}),
        ("That is 4.90 EUR, free from 50 EUR.", {money(50), Fact("money_eur", "4.9")}),
        ("You have 30 days and 24 months.", {Fact("days", "30"), Fact("months", "24")}),
        ("gold, 120 points", {Fact("tier", "gold"), Fact("points", "120")}),
        ("Call 0800-123-456.", {Fact("phone", "0800-123-456")}),
        ("Write to help@talino.example.", {Fact("email", "help@talino.example")}),
        ("09:00 to 18:30, Monday", {Fact("time", "09:00"), Fact("time", "18:30"),
                                    Fact("weekday", "Monday")}),
        ("the Talino desk lamp", {Fact("item", "Talino desk lamp")}),
        ("The kettle is fine.", set()),
        ("I cannot find order 12345.", {Fact("refusal", "order"), Fact("order", "12345")}),
        ("I cannot see your account.", {Fact("refusal", "account")}),
        ("2 of your orders", {Fact("count", "2")}),
    ],
)  # fmt: skip
def test_parse_reads_facts(text: str, facts: set[Fact]) -> None:
    assert parse(text) == facts


def test_names_are_found_where_asked_for() -> None:
    known = [Fact("name", "Marelo Tivane"), Fact("name", "Bela Zoro")]
    assert parse("Marelo Tivane has 3 orders", known) == {
        Fact("name", "Marelo Tivane"),
        Fact("count", "3"),
    }


def test_any_wording_with_the_right_fact_passes() -> None:
    example = _only("return_window")
    days = example.store.return_days
    assert samples.check(example, f"Sure! Send it back, you have {days} days.")
    assert not samples.check(example, f"Sure! Send it back, you have {days + 1} days.")
    assert not samples.check(example, "Sure! Send it back.")
    assert not samples.check(example, "")


def test_a_right_fact_beside_a_wrong_one_fails() -> None:
    example = _only("shipping")
    assert samples.check(example, example.answer)
    assert not samples.check(example, example.answer + " Or 777 EUR.")
    assert not samples.check(example, example.answer + " Order 12345 is shipped.")


def test_facts_of_the_same_order_may_be_added_but_not_of_another() -> None:
    for example in samples.requests(5, 40, intents=("order_item",)):
        if len(example.customer.orders) < 2 or len(example.messages) > 2:
            continue
        asked = next(o for o in example.customer.orders if o.order_id in example.answer)
        other = next(o for o in example.customer.orders if o is not asked)
        assert samples.check(example, f"{example.answer} It is {asked.status}.")
        assert not samples.check(example, f"{example.answer} And the {other.item}.")
        return
    pytest.fail("no example with two orders")


@pytest.mark.parametrize("intent", ["order_status", "order_eta", "order_price", "total_price"])
def test_a_change_to_any_number_of_the_answer_fails(intent: str) -> None:
    example = _only(intent)
    digits = [index for index, char in enumerate(example.answer) if char.isdigit()]
    for index in digits:
        digit = str((int(example.answer[index]) + 1) % 10)
        changed = example.answer[:index] + digit + example.answer[index + 1 :]
        assert not samples.check(example, changed), changed


def test_refusing_is_wrong_when_the_order_exists_and_right_when_not() -> None:
    existing, missing = _only("order_status"), _only("order_missing")
    assert not samples.check(existing, "I cannot find that order on your account.")
    assert samples.check(missing, "Sorry, I cannot find that order.")
    some = missing.customer.orders[0]
    assert not samples.check(missing, f"Order {some.order_id} is {some.status}.")


def test_tie_breakers_of_rare_intents_are_unambiguous() -> None:
    for example in samples.requests(6, 30, intents=("first_arrival", "most_expensive")):
        named = [o for o in example.customer.orders if o.order_id in example.answer]
        assert len(named) == 1
        others = [o for o in example.customer.orders if o is not named[0]]
        if example.intent == "most_expensive":
            assert all(o.price_eur < named[0].price_eur for o in others)


def test_rendering_separates_store_and_customer() -> None:
    store, customer = samples.make_store(1, 2), samples.make_customer(1, 2)
    system, context = samples.render_system(store), samples.render_context(customer)
    assert samples.render_system_message(store, customer) == f"{system}\n{context}"
    assert samples.render_system_message(store, None) == system
    assert context.startswith("<customer>\n")
    assert context.endswith("\n</customer>")
    assert customer.name not in system
    assert all(f"Order {o.order_id} contains the {o.item}." in context for o in customer.orders)


def test_a_delivered_order_is_rendered_as_arrived() -> None:
    today = dt.date(2026, 3, 14)
    order = Order("48213", "Talino", "kettle", 39, "delivered", today, today)
    customer = dataclasses.replace(samples.make_customer(1, 1), orders=(order,))
    assert samples.render_context(customer).splitlines()[-2] == (
        "They bought the Talino kettle with order 48213. Order 48213 contains the Talino kettle. "
        "Order 48213 is delivered. Order 48213 arrived on 14 March. "
        "Order 48213 was placed on 14 March. Order 48213 costs 39 EUR."
    )


def test_plain_fields_render_as_the_customer_does() -> None:
    customer = samples.make_customer(1, 3)
    orders = [
        OrderLine(o.order_id, o.item, o.status, o.ordered, o.arrives, o.price_eur)
        for o in customer.orders
    ]
    assert samples.render_context(customer) == context_block(
        name=customer.name,
        tier=customer.tier,
        points=customer.points,
        today=customer.today,
        orders=orders,
    )


def test_a_customer_without_orders_renders_too() -> None:
    block = context_block(
        name="Bela Zoro", tier="gold", points=12, today=dt.date(2026, 3, 14), orders=()
    )
    assert block.splitlines() == [
        "<customer>",
        "The customer Bela Zoro is a gold member with 12 points and 0 orders.",
        "Today is 14 March.",
        "</customer>",
    ]


def test_tier_extras_grow_with_the_tier_and_unknown_tiers_are_refused() -> None:
    store = samples.make_store(1, 1)
    days = [store.extra_days(tier) for tier in ("bronze", "silver", "gold", "platinum")]
    assert days[0] == 0
    assert days == sorted(set(days))
    with pytest.raises(ValueError):
        store.extra_days("diamond")
