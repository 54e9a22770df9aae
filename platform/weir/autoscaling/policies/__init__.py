"""The policies that ship. Importing this registers them."""

from weir.autoscaling.policies import aibrix, dynamo, kpa, llm_d, ray_serve, weir

__all__ = ["aibrix", "dynamo", "kpa", "llm_d", "ray_serve", "weir"]
