"""The rules. Importing this package registers all of them."""

from router.disaggregation.rules import adaptive, always, dynamo, llm_d

__all__ = ["adaptive", "always", "dynamo", "llm_d"]
