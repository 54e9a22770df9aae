"""What a replica does when its machine is about to be taken away.

It tells gateways at once that it drains, so its streams go on elsewhere from the exact token. And
it calls itself unhealthy, which makes Serve start another replica in its place now, not once the
machine has gone; Serve then stops this one as any replica, with its time to drain.
"""

from __future__ import annotations

import asyncio

from deployments.notices import Notice, NoticeWatch
from deployments.pools import Membership
from deployments.streams import TokenStreams


class MachineInterruptedError(Exception):
    """The machine is about to be taken away."""


def watch_notices(membership: Membership, streams: TokenStreams) -> asyncio.Task[None] | None:
    """A task that waits for a notice; None where nothing says where to ask."""
    if membership.notices is None:
        return None

    def told(notice: Notice) -> None:
        del notice
        streams.interrupt()

    watch = NoticeWatch(membership.notices, told)
    return asyncio.get_running_loop().create_task(watch.run())


def refuse_if_interrupted(streams: TokenStreams) -> None:
    """For the replica's health check.

    Raises:
        MachineInterruptedError: Serve is to put another replica in its place.
    """
    if streams.interrupted:
        raise MachineInterruptedError("the machine is about to be taken away")
