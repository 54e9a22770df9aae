"""Spilling: when to fall back, and the small models that answer then."""
