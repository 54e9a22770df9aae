"""Admission: when a request runs. Pure queue in :mod:`router.admission.queue`, dispatcher in
:mod:`router.dispatcher`, asyncio wrapper in :mod:`router.admission.gate`."""

import router.admission.limits  # noqa: F401 - registers the limits
from router.admission.capacity import Capacity, Room, Unlimited
from router.admission.outcomes import (
    Dispatch,
    Failed,
    Refusal,
    Refused,
    Shed,
    Spill,
    SpilledError,
    Wait,
)
from router.admission.queue import AdmissionQueue
from router.admission.ticket import Ticket
from weir.settings.admission import AdmissionSettings, ClassSettings, Share

__all__ = [
    "AdmissionQueue",
    "AdmissionSettings",
    "Capacity",
    "ClassSettings",
    "Dispatch",
    "Failed",
    "Refusal",
    "Refused",
    "Room",
    "Share",
    "Shed",
    "Spill",
    "SpilledError",
    "Ticket",
    "Unlimited",
    "Wait",
]
