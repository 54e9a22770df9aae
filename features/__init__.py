"""Enriching: online features in the request path and features generated offline."""
