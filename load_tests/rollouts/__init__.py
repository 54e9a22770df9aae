"""Rollouts of candidate versions, simulated."""
