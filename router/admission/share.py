"""How far a class or a tenant may fill a replica: the two shares that nobody configures."""

from __future__ import annotations

from weir.settings.admission import Share

FULL_SHARE = Share()
#: What ageing gives: everything, without regard to what is cached.
AGED_SHARE = Share(crowd_out=True)
