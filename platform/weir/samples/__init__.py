"""A store's support desk: a seeded world, its conversations and a checker for answers.

The teacher is trained on it, the student is distilled on it, the features describe its customers,
and the load generator asks its questions. Pure standard library.
"""

from weir.samples.corpus import (
    CORPUS_VERSION,
    Conversation,
    Example,
    check,
    conversations,
    requests,
)
from weir.samples.facts import Fact, judge, parse
from weir.samples.intents import INTENTS
from weir.samples.render import (
    Message,
    order_line,
    render_context,
    render_system,
    render_system_message,
)
from weir.samples.words import Split, split_of
from weir.samples.world import Customer, Order, Store, make_customer, make_store

__all__ = [
    "CORPUS_VERSION",
    "INTENTS",
    "Conversation",
    "Customer",
    "Example",
    "Fact",
    "Message",
    "Order",
    "Split",
    "Store",
    "check",
    "conversations",
    "judge",
    "make_customer",
    "make_store",
    "order_line",
    "parse",
    "render_context",
    "render_system",
    "render_system_message",
    "requests",
    "split_of",
]
