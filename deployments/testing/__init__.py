"""Fakes around the real gateway and the real replica front end: no Ray, and no model."""

from deployments.testing.scripted import ScriptedGenerator
from deployments.testing.world import PlainEnricher, Replica, World

__all__ = ["PlainEnricher", "Replica", "ScriptedGenerator", "World"]
