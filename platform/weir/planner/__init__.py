"""Capacity: what a model needs to serve given traffic within its SLOs, and what that costs."""
