"""weir's kernel: what every room may import. Types, settings, errors, metrics, tenancy, CLI."""

__version__ = "0.1.0"
