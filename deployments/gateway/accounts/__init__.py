"""What tenants may use, and what it costs them: quotas and budgets, exact across gateways."""

from deployments.gateway.accounts.account import Account
from deployments.gateway.accounts.book import Book
from deployments.gateway.accounts.errors import BudgetSpillError
from deployments.gateway.accounts.later import Later
from deployments.gateway.accounts.redis_store import RedisStore
from deployments.gateway.accounts.store import LocalStore, Store
from deployments.gateway.accounts.tab import Charge, Most, Tab

__all__ = [
    "Account",
    "Book",
    "BudgetSpillError",
    "Charge",
    "Later",
    "LocalStore",
    "Most",
    "RedisStore",
    "Store",
    "Tab",
]
