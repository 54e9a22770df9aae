"""Routing policies and scorers. Importing this package registers all of them."""

from router.scorers import least_outstanding, round_robin

__all__ = ["least_outstanding", "round_robin"]
