"""The ledger: what was used, by whom, and what it cost (docs/ledger.md).

A gateway writes records into its outbox before an answer ends (:mod:`weir.ledger.outbox`), ships
them through a Redis stream (:mod:`weir.ledger.shipping`), and a writer puts them into the database
(:mod:`weir.ledger.writer`), from where reports are made.
"""

from weir.ledger.record import Entry, Loss, Part, ReplicaTime, UsageRecord

__all__ = ["Entry", "Loss", "Part", "ReplicaTime", "UsageRecord"]
