"""What tenants may use, and what it costs them: quotas and budgets, exact across gateways."""

from deployments.gateway.accounts.account import Account, Charge, LocalStore, Most, Store, Tab
from deployments.gateway.accounts.book import Book
from deployments.gateway.accounts.errors import BudgetSpillError
from deployments.gateway.accounts.redis_store import RedisStore

__all__ = [
    "Account",
    "Book",
    "BudgetSpillError",
    "Charge",
    "LocalStore",
    "Most",
    "RedisStore",
    "Store",
    "Tab",
]
