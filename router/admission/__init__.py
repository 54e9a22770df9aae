"""Admission: when a request runs. Pure queue in :mod:`router.admission.queue`, asyncio wrapper in
:mod:`router.admission.gate`."""

from router.admission.capacity import Capacity, ReplicaLimits, Share, SnapshotCapacity
from router.admission.gate import AdmissionGate, Gate, OpenGate
from router.admission.outcomes import Dispatch, Outcome, Refusal, Shed, Spill, SpilledError, Wait
from router.admission.queue import AdmissionQueue
from router.admission.settings import AdmissionSettings, ClassSettings, parse_settings
from router.admission.ticket import Grant, Ticket

__all__ = [
    "AdmissionGate",
    "AdmissionQueue",
    "AdmissionSettings",
    "Capacity",
    "ClassSettings",
    "Dispatch",
    "Gate",
    "Grant",
    "OpenGate",
    "Outcome",
    "Refusal",
    "ReplicaLimits",
    "Share",
    "Shed",
    "SnapshotCapacity",
    "Spill",
    "SpilledError",
    "Ticket",
    "Wait",
    "parse_settings",
]
