"""Telling of database or storage being away: once when it begins, once when it is over."""

from __future__ import annotations

import logging

_LOG = logging.getLogger("weir.batches")


class Outage:
    """``what`` cannot be done meanwhile, in words."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._there = False

    def begin(self, error: Exception) -> None:
        """It was tried, and failed."""
        if not self._there:
            self._there = True
            _LOG.warning(self._what, extra={"reason": str(error)})

    def over(self) -> None:
        """It was tried, and done."""
        if self._there:
            self._there = False
            _LOG.info("over: %s", self._what)
