"""What one request may cost the platform."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """``request_timeout_s`` runs from admission; waiting in the queue has a bound of its own for
    each priority class. ``dispatch_attempts``: replicas that may fail on a choice one after the
    other without a token. ``resume_wait_s``: so long a choice whose replica is lost waits for
    another one to come up. ``most_legs``: replicas that one choice may see in all.
    ``body_timeout_s``: so long a client may take to send its body."""

    max_body_bytes: int
    dispatch_attempts: int
    request_timeout_s: float
    resume_wait_s: float = 30.0
    most_legs: int = 64
    body_timeout_s: float = 60.0
