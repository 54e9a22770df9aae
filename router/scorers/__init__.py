"""Routing policies and scorers. Importing this package registers all of them."""

from router.scorers import expected_work, least_outstanding, round_robin, weighted

__all__ = ["expected_work", "least_outstanding", "round_robin", "weighted"]
