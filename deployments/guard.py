"""Starts again what ended, and tells the front door which gateways there are.

Threads of the supervisor, one for each part, so that nothing that is waited for elsewhere (a
deploy, a controller that does not answer, a part that comes up slowly) delays another.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from deployments.haproxy import FrontDoor
from deployments.haproxy_config import Target
from weir.errors import ConfigError

logger = logging.getLogger(__name__)

_FOLLOW_S = 0.5
# What cannot come up (its port was taken meanwhile) is tried again at this pace.
_PAUSE_S = 1.0
_STOP_S = 5.0


class Part(Protocol):
    """A process that can be started again in place."""

    def wait(self) -> None:
        """Until it has ended; returns at once where none runs."""

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ConfigError: it does not come up.
        """


class Guard:
    """``gateways`` asks Serve; it may block and may raise. ``restarted`` is called with a part's
    name after it was started again."""

    def __init__(
        self,
        gateways: Callable[[], list[Target]],
        front: FrontDoor,
        restarted: Callable[[str], None],
    ) -> None:
        self._gateways = gateways
        self._front = front
        self._restarted = restarted
        self._parts: dict[str, Part] = {"HAProxy": front}
        self._stopping = threading.Event()
        self._starting = {"HAProxy": threading.Lock()}
        self._follower: threading.Thread | None = None

    def watch(self, name: str, part: Part) -> None:
        """To be called before :meth:`start`."""
        self._parts[name] = part
        self._starting[name] = threading.Lock()

    def start(self) -> None:
        """From now on, look after all parts."""
        self._follower = _run("gateways", self._follow_gateways)
        for name, part in self._parts.items():
            _run(name, self._keep_alive, name, part)

    def stop(self, patience_s: float = _STOP_S) -> None:
        """Parts that end from now on stay as they are."""
        self._stopping.set()
        for lock in self._starting.values():
            if lock.acquire(timeout=patience_s):  # none is being started now
                lock.release()
        if self._follower is not None:
            self._follower.join(patience_s)  # a call to a Ray that is gone may take longer

    def _keep_alive(self, name: str, part: Part) -> None:
        # Waits in the system, so that it costs nothing; it ends with the part once all stops.
        while not self._stopping.is_set():
            part.wait()
            with self._starting[name]:
                if not self._stopping.is_set():
                    self._start_again(name, part)

    def _start_again(self, name: str, part: Part) -> None:
        try:
            part.start()
        except (ConfigError, OSError) as error:
            logger.warning("%s does not come up again: %s", name, error)
            self._stopping.wait(_PAUSE_S)
        else:
            self._restarted(name)

    def _follow_gateways(self) -> None:
        while not self._stopping.wait(_FOLLOW_S):
            try:
                self._front.route_to(self._gateways())
            except Exception as error:  # noqa: BLE001 - the thread's edge: Ray raises many kinds
                # Serve's controller is being started again, or HAProxy is. The next look is soon.
                logger.info("the gateways cannot be followed now: %s", error)


def _run(name: str, target: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, name=name, daemon=True)
    thread.start()
    return thread
