"""Runs the ledger's writer alone, where the control process does not: ``python -m weir.ledger``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from weir.database import migrate, open_database
from weir.ledger.rates import Rates, rates_of
from weir.ledger.writer import run_writer
from weir.settings import parse_settings, read_tree


def main(argv: list[str] | None = None) -> None:
    """Write until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True, help="URL of the platform's Redis")
    parser.add_argument("--database", required=True, help="URL of the platform's database")
    parser.add_argument("--settings", type=Path, help="a settings file, for what replicas cost")
    arguments = parser.parse_args(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    rates: Rates = {}
    if arguments.settings is not None:
        file = arguments.settings
        rates = rates_of(parse_settings(read_tree(file), str(file)))
    engine = open_database(arguments.database)
    migrate(engine)
    run_writer(arguments.redis, engine, stop, lambda: rates)


if __name__ == "__main__":
    main()
