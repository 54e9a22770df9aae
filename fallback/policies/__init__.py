"""When a request spills to the student. Pure: facts and a clock in, a decision out."""

from fallback.policies.breaker import BreakerState, CircuitBreaker, Pass
from fallback.policies.cost import CostPolicy
from fallback.policies.hysteresis import Hysteresis
from fallback.policies.kinds import CAPACITY, CASCADE, COST, FAILURE, LONG_TAIL, OVERLOAD
from fallback.policies.overload import OverloadPolicy
from fallback.policies.spill import RequestFacts, SpillPolicy
from weir.settings.fallback import Kind

__all__ = [
    "CAPACITY",
    "CASCADE",
    "COST",
    "FAILURE",
    "LONG_TAIL",
    "OVERLOAD",
    "BreakerState",
    "CircuitBreaker",
    "CostPolicy",
    "Hysteresis",
    "Kind",
    "OverloadPolicy",
    "Pass",
    "RequestFacts",
    "SpillPolicy",
]
