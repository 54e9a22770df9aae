"""A store's support desk: a seeded world, its conversations and a checker for answers.

The teacher is trained on it, the student is distilled on it, the features describe its customers,
and the load generator asks its questions. Pure standard library.
"""

from weir.desk.corpus import CORPUS_VERSION, Conversation, Example, check, conversations, requests
from weir.desk.facts import Fact, judge, parse
from weir.desk.intents import INTENTS
from weir.desk.render import (
    Message,
    OrderLine,
    context_block,
    order_line,
    render_context,
    render_system,
    render_system_message,
)
from weir.desk.words import Split, split_of
from weir.desk.world import Customer, Order, Store, make_customer, make_store

__all__ = [
    "CORPUS_VERSION",
    "INTENTS",
    "Conversation",
    "Customer",
    "Example",
    "Fact",
    "Message",
    "Order",
    "OrderLine",
    "Split",
    "Store",
    "check",
    "context_block",
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
