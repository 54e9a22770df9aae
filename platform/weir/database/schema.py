"""What all tables share: one ``MetaData`` with names for constraints, and the type of amounts."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import BigInteger, Dialect, MetaData
from sqlalchemy.types import TypeDecorator

#: A row as a mapping of its columns.
Row = Mapping[Any, Any]

_NANO = Decimal(10) ** 9

#: A migration can only drop a constraint that has a name.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UsdColumn(TypeDecorator[Decimal]):
    """USD as a whole number of nano-USD, so that sums are exact in every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        """Raises:
        ValueError: the amount has more than nine places after the point.
        """
        if value is None:
            return None
        nano = value * _NANO
        if nano != nano.to_integral_value():
            raise ValueError(f"{value} USD is no whole number of nano-USD")
        return int(nano)

    def process_result_value(self, value: int | None, dialect: Dialect) -> Decimal | None:
        """The amount. A sum in PostgreSQL is a Decimal already, of nano-USD."""
        return None if value is None else Decimal(value).scaleb(-9)
