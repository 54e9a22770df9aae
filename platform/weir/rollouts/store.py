"""Rollouts in the database: one document of the directory, which gateways watch. Each change is one
transaction and is in the audit log. Nothing here runs on an event loop."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine

from weir.database.engine import reading, writing
from weir.errors import ConflictError, NotFoundError
from weir.rollouts.course import ENDED, Rollout, State, as_document, ended, rollouts_of
from weir.settings.rollout import RolloutSettings
from weir.tenancy.audit import append_audit
from weir.tenancy.rows import ROLLOUTS, document, next_revision, put_document

#: What the judge found last, by the rollout's id. Gateways have no use for it, so it takes no
#: revision.
FINDINGS = "rollout-findings"
#: Rollouts that have ended and are still listed; all are in the audit log.
_ENDED_KEPT = 20


class RolloutStore:
    """``clock`` gives seconds since the epoch; ``actor`` is who changes something, as the audit log
    shall say it."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock
        self._joined: Connection | None = None

    def within(self, connection: Connection) -> RolloutStore:
        """The same store, whose changes are part of the caller's transaction."""
        store = RolloutStore(self._engine, self._clock)
        store._joined = connection
        return store

    def rollouts(self) -> tuple[Rollout, ...]:
        """All that are listed, the newest first."""
        with reading(self._engine) as connection:
            return rollouts_of(document(connection, ROLLOUTS) or ())

    def rollout(self, model: str) -> Rollout:
        """The newest of a model.

        Raises:
            NotFoundError: there is none.
        """
        return _newest(self.rollouts(), model)

    def start(self, actor: str, model: str, candidate: str, settings: RolloutSettings) -> Rollout:
        """Try ``candidate`` in the place of ``model``, from now on.

        Raises:
            ConflictError: one of the two takes part in another rollout.
        """
        now_s = self._clock()
        made = Rollout(secrets.token_hex(6), model, candidate, settings, now_s, now_s)
        with self._changing() as connection:
            listed = rollouts_of(document(connection, ROLLOUTS) or ())
            for other in (each for each in listed if each.in_force):
                if {model, candidate} & {other.model, other.candidate}:
                    raise ConflictError(
                        f"{other.candidate!r} is tried in the place of {other.model!r} already "
                        f"({other.state}); end that rollout first."
                    )
            self._write(connection, actor, "rollout.start", (made, *listed), None, made)
        return made

    def end(self, actor: str, model: str, state: State, reason: str) -> Rollout:
        """End the model's rollout: ``promoted``, ``rolled back`` or ``aborted``.

        Raises:
            NotFoundError: there is none.
            ConflictError: it has ended.
        """

        def end(rollout: Rollout) -> Rollout:
            if rollout.state in ENDED:
                raise ConflictError(f"The rollout of {model!r} is {rollout.state} already.")
            return ended(rollout, state, reason, self._clock())

        return self._change(actor, f"rollout.{state.replace(' ', '_')}", model, end)

    def hold(self, actor: str, model: str, held: bool) -> Rollout:
        """Keep its share as it is, or let it go on.

        Raises:
            NotFoundError: there is none.
            ConflictError: it has ended.
        """

        def hold(rollout: Rollout) -> Rollout:
            if rollout.state in ENDED:
                raise ConflictError(f"The rollout of {model!r} is {rollout.state} already.")
            reason = "held by hand" if held else ""
            return replace(rollout, state="held" if held else "running", reason=reason)

        return self._change(actor, "rollout.hold" if held else "rollout.resume", model, hold)

    def close(self, actor: str, model: str) -> Rollout:
        """The model answers its requests itself again, after its rollout was promoted (its
        settings name the new version by then).

        Raises:
            NotFoundError: there is none.
            ConflictError: it was not promoted.
        """

        def close(rollout: Rollout) -> Rollout:
            if rollout.state != "promoted":
                raise ConflictError(f"The rollout of {model!r} is {rollout.state}, not promoted.")
            return replace(rollout, closed=True)

        return self._change(actor, "rollout.close", model, close)

    def advance(self, actor: str, before: Rollout, after: Rollout) -> bool:
        """What the judge made of it, unless somebody else has changed it meanwhile: then False."""
        with self._changing() as connection:
            listed = rollouts_of(document(connection, ROLLOUTS) or ())
            if before not in listed:
                return False
            now = tuple(after if each == before else each for each in listed)
            action = f"rollout.{after.state.replace(' ', '_')}"
            self._write(connection, actor, action, now, before, after)
            return True

    def note_findings(self, findings: Mapping[str, Any]) -> None:
        """What the judge found, by rollouts' ids. No change of the directory."""
        with writing(self._engine) as connection:
            put_document(connection, FINDINGS, dict(findings), 0)

    def findings(self) -> dict[str, Any]:
        """What :meth:`note_findings` noted last."""
        with reading(self._engine) as connection:
            return dict(document(connection, FINDINGS) or {})

    def _change(
        self, actor: str, action: str, model: str, change: Callable[[Rollout], Rollout]
    ) -> Rollout:
        with self._changing() as connection:
            listed = rollouts_of(document(connection, ROLLOUTS) or ())
            before = _newest(listed, model)
            after = change(before)
            now = tuple(after if each == before else each for each in listed)
            self._write(connection, actor, action, now, before, after)
        return after

    def _write(
        self,
        connection: Connection,
        actor: str,
        action: str,
        listed: tuple[Rollout, ...],
        before: Rollout | None,
        after: Rollout,
    ) -> None:
        revision = next_revision(connection)
        active = [each for each in listed if each.in_force]
        over = [each for each in listed if not each.in_force][:_ENDED_KEPT]
        put_document(connection, ROLLOUTS, as_document([*active, *over]), revision)
        append_audit(
            connection,
            self._clock(),
            actor,
            action,
            f"rollout:{after.id}",
            before=None if before is None else as_document([before])[0],
            after=as_document([after])[0],
            revision=revision,
        )

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        own = writing(self._engine) if self._joined is None else nullcontext(self._joined)
        with own as connection:
            yield connection


def _newest(listed: tuple[Rollout, ...], model: str) -> Rollout:
    own = [each for each in listed if each.model == model]
    if not own:
        raise NotFoundError(f"There is no rollout of the model {model!r}.", param="model")
    return max(own, key=lambda each: each.started_s)
