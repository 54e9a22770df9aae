"""The dashboards, each in a file of its own."""

from boards.autoscaling import AUTOSCALING
from boards.cost import COST
from boards.engines import ENGINES
from boards.fallback import FALLBACK
from boards.features import FEATURES
from boards.overview import OVERVIEW
from boards.pools import POOLS
from boards.router import ROUTER
from boards.slo import SLO

DASHBOARDS = (
    OVERVIEW,
    SLO,
    COST,
    ROUTER,
    ENGINES,
    POOLS,
    FEATURES,
    FALLBACK,
    AUTOSCALING,
)
