"""The corpus: seeded, disjoint between the splits, and right about itself."""

import hashlib
import itertools
import json
import re
from collections import Counter

import pytest

from weir import samples
from weir.samples.intents import PHRASES
from weir.samples.words import split_of


def _talks(seed: int, n: int, split: samples.Split = "train") -> list[samples.Conversation]:
    return list(itertools.islice(samples.conversations(seed, split), n))


def _text(talk: samples.Conversation) -> str:
    return "\n".join(message["content"] for message in talk.messages())


def test_same_seed_gives_the_same_text_and_another_seed_does_not() -> None:
    assert _talks(3, 20) == _talks(3, 20)
    assert _talks(3, 20) != _talks(4, 20)


def test_corpus_text_is_the_one_its_version_names() -> None:
    text = json.dumps([talk.messages() for talk in _talks(1, 50)])
    assert samples.CORPUS_VERSION == "2"
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "4a86b3e589eed579"


def test_start_passes_over_conversations() -> None:
    assert next(samples.conversations(3, start=7)) == _talks(3, 8)[7]


def test_entities_never_cross_the_splits() -> None:
    def entities(split: samples.Split) -> set[str]:
        found: set[str] = set()
        for index in range(300):
            store = samples.make_store(5, index, split)
            customer = samples.make_customer(5, index, split)
            found |= {store.name.split()[0], *customer.name.split()}
            found |= {part for order in customer.orders for part in (order.order_id, order.brand)}
        return found

    train, heldout = entities("train"), entities("heldout")
    assert len(train) > 1000
    assert len(heldout) > 1000
    assert not train & heldout
    assert {split_of(text) for text in train} == {"train"}
    assert {split_of(text) for text in heldout} == {"heldout"}


def test_held_out_prompts_hold_no_training_entity() -> None:
    for example in samples.requests(11, 60):
        system = example.messages[0]["content"]
        ids = re.findall(r" with order (\d{5})\.", system)
        assert ids or "<customer>" not in system
        assert all(split_of(order_id) == "heldout" for order_id in ids)


def test_phrasings_never_cross_the_splits() -> None:
    train = {q.lower() for p in PHRASES.values() for q in (*p.train, *p.follow_ups)}
    heldout = {q.lower() for p in PHRASES.values() for q in (*p.heldout, *p.heldout_follow_ups)}
    assert not train & heldout
    assert {e.template.lower() for e in samples.requests(1, 400)} <= heldout
    assert {t.template.lower() for talk in _talks(1, 200) for t in talk.turns} <= train


def test_an_answer_about_an_order_repeats_sentences_of_the_prompt() -> None:
    intents = (
        "order_status",
        "order_eta",
        "order_item",
        "order_price",
        "order_date",
        "other_order",
    )
    for example in samples.requests(12, 120, intents=intents):
        sentences = example.answer.removesuffix(".").split(". ")
        assert f"{sentences[-1]}." in example.messages[0]["content"]
        if example.intent == "other_order":
            assert f"{sentences[0]}." in example.messages[0]["content"]
        elif len(sentences) == 2:  # named by its item
            item, order_id = sentences[0].removeprefix("You bought the ").split(" with order ")
            assert f"{item} with order {order_id}." in example.messages[0]["content"]
            assert item in example.messages[-1]["content"]


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_reference_answers_pass_their_own_check(split: samples.Split) -> None:
    for example in samples.requests(2, 10 * len(samples.INTENTS), split=split):
        assert samples.check(example, example.answer), example
    for turn in (turn for talk in _talks(6, 200, split) for turn in talk.turns):
        assert samples.judge(turn.answer, turn.required, turn.allowed), turn


def test_answers_to_other_examples_are_wrong() -> None:
    intents = [name for name in samples.INTENTS if name != "store_unknown"]  # has one answer
    examples = list(samples.requests(8, 6 * len(intents), intents=intents))
    pairs = [(a, b) for a, b in itertools.pairwise(examples)]
    pairs += [(a, b) for a in examples for b in examples if a.intent == b.intent and a is not b]
    passed = sum(samples.check(a, b.answer) for a, b in pairs)
    # Counts and statuses agree by chance now and then, and a refusal may name no order.
    assert passed / len(pairs) < 0.06


def test_every_intent_is_asked_and_has_a_group() -> None:
    examples = list(samples.requests(1, 3 * len(samples.INTENTS)))
    assert Counter(e.intent for e in examples) == dict.fromkeys(samples.INTENTS, 3)
    assert {e.group for e in examples} == {"common", "rare"}
    assert sum(group == "common" for group in samples.INTENTS.values()) >= 8


def test_requests_are_seeded_and_end_with_the_question() -> None:
    first = list(samples.requests(4, 30, intents=("order_status", "loyalty")))
    assert first == list(samples.requests(4, 30, intents=("order_status", "loyalty")))
    for example in first:
        roles = [message["role"] for message in example.messages]
        assert roles[0] == "system"
        assert roles[1:] == ["user", "assistant"] * (len(roles) // 2 - 1) + ["user"]


def test_easy_conversations_say_only_what_is_asked_and_all_of_it() -> None:
    easy = list(itertools.islice(samples.conversations(3, easy=True), 100))
    whole = _talks(3, 100)
    assert sum(len(t.system) for t in easy) < 0.6 * sum(len(t.system) for t in whole)
    for talk in easy:
        for turn in talk.turns:
            stated = samples.parse(f"{talk.system}\n{turn.question}", turn.required)
            sums = {"days", "money_eur", "count", "refusal"}
            assert {fact for fact in turn.required if fact.kind not in sums} <= stated


def test_zipf_makes_a_few_customers_ask_most() -> None:
    def share_of_top_ten(zipf: float | None) -> float:
        counts = Counter(e.entity_id for e in samples.requests(1, 400, zipf=zipf, customers=200))
        assert len(counts) > 20
        return sum(count for _, count in counts.most_common(10)) / 400

    assert share_of_top_ten(1.2) > 2 * share_of_top_ten(None)


def test_prompt_of_an_example_is_what_its_store_and_customer_render() -> None:
    for example in samples.requests(9, len(samples.INTENTS)):
        if example.intent == "store_unknown":
            assert [message["role"] for message in example.messages] == ["user"]
            continue
        known = example.customer if example.intent != "account_unavailable" else None
        expected = samples.render_system_message(example.store, known)
        assert example.messages[0]["content"] == expected
        store_index = int(example.customer.customer_id[1:]) % 8
        assert example.store == samples.make_store(9, store_index, "heldout")


@pytest.mark.parametrize("arguments", [{"intents": ("nonsense",)}, {"customers": 0}, {"stores": 0}])
def test_impossible_requests_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        list(samples.requests(1, 1, **arguments))  # type: ignore[arg-type]
