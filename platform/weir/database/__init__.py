"""The one database: SQLite in the state folder, or PostgreSQL. SQLAlchemy Core, synchronous: never
called on an event loop."""

from weir.database.engine import open_database, reading, writing
from weir.database.migration import SchemaState, migrate, require_current, schema_state
from weir.database.schema import Row, UsdColumn, metadata
from weir.database.url import ENVIRONMENT_VARIABLE, database_url

__all__ = [
    "ENVIRONMENT_VARIABLE",
    "Row",
    "SchemaState",
    "UsdColumn",
    "database_url",
    "metadata",
    "migrate",
    "open_database",
    "reading",
    "require_current",
    "schema_state",
    "writing",
]
