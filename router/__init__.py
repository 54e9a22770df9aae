"""Deciding: when a request runs, where it runs, or that it does not run here. Pure Python."""
