"""Batch jobs on a real platform: beside interactive traffic, and while parts of it are killed."""
