"""TTFT and TPOT per replica, learned online from what the gateway sees. No training service.

Each is a linear model fitted by recursive least squares with exponential forgetting (Plackett
1950; Ljung, *System Identification*, 11.2), scaled by the prediction so that relative errors
count, three coefficients each:

- TTFT from the kilotokens to prefill before the first token (queued ahead on the replica and the
  request's own, cached ones left out) and the requests in flight there;
- TPOT from the requests in flight and the kilotokens of context they keep in the KV cache.

A replica that has told little yet borrows the fit of all replicas together. The error published
is honest: each prediction is made before its own outcome is learned.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.ledger import Outlook
from router.types import LatencyFit

_Three = tuple[float, float, float]
#: Below this a latency is noise of the event loop; relative errors are not taken of less.
_FLOOR_S = 0.001
#: Variance of coefficients that are believed, but not for long.
_SURE = 1.0


@dataclass(frozen=True, slots=True)
class LatencyParams:
    """``forgetting``: weight that an observation keeps per later one. ``own_samples``: from how
    many on a replica's own fit is used. ``publish_every``: observations between new fits.
    ``outlier``: residuals beyond this many mean errors count as that many (a cold start must not
    teach what a warm replica does). ``rising``: no time per token is believed to fall with more
    requests or more context; see :attr:`LeastSquares.rising`."""

    forgetting: float = 0.995
    own_samples: int = 32
    publish_every: int = 8
    outlier: float = 4.0
    rising: bool = False


@dataclass(frozen=True, slots=True)
class LatencyError:
    """Mean absolute relative error of predictions made beforehand (recent ones weigh more)."""

    ttft_relative: float
    tpot_relative: float
    ttft_samples: int
    tpot_samples: int


class LeastSquares:
    """Recursive least squares with three features. O(9) per observation."""

    __slots__ = ("_cov", "_forgetting", "_means", "_outlier", "error", "samples", "theta")

    def __init__(
        self,
        forgetting: float,
        outlier: float,
        theta: _Three = (0.0, 0.0, 0.0),
        spread: float = 1e3,
    ) -> None:
        self._forgetting = forgetting
        self._outlier = outlier
        self.theta = theta
        self._cov = _prior(spread)
        self._means = (0.0, 0.0)
        self.error = 0.0
        self.samples = 0

    def predict(self, x: _Three) -> float:
        """The value at ``x`` (seconds), never negative."""
        t = self.theta
        return max(0.0, t[0] * x[0] + t[1] * x[1] + t[2] * x[2])

    def observe(self, x: _Three, y: float) -> None:
        """Learn that ``x`` took ``y`` seconds; the error is counted first."""
        predicted = self.predict(x)
        relative = min(10.0, abs(predicted - y) / max(y, _FLOOR_S))
        if self.samples:
            rate = max(0.02, 1.0 / self.samples)
            self.error += rate * (relative - self.error)
        self.samples += 1
        weight = max(0.02, 1.0 / self.samples)
        a, b = self._means
        self._means = (a + weight * (x[1] - a), b + weight * (x[2] - b))
        scale = 1.0 / max(predicted, y / 4.0, _FLOOR_S)
        self._update((x[0] * scale, x[1] * scale, x[2] * scale), y * scale)

    @property
    def rising(self) -> _Three:
        """The coefficients without slopes below 0, which only chance has learned: where the load
        was much the same all the time, or fell while something else made everything slower. What
        such a slope said of a usual load goes into the first coefficient. Believed, it would make
        a replica look the better the more it has to do."""
        base, first, second = self.theta
        a, b = self._means
        base += min(0.0, first) * a + min(0.0, second) * b
        return (base, max(0.0, first), max(0.0, second))

    def _update(self, x: _Three, y: float) -> None:
        p, (a, b, c), t = self._cov, x, self.theta
        px = (
            p[0][0] * a + p[0][1] * b + p[0][2] * c,
            p[1][0] * a + p[1][1] * b + p[1][2] * c,
            p[2][0] * a + p[2][1] * b + p[2][2] * c,
        )
        residual = y - (t[0] * a + t[1] * b + t[2] * c)
        if self.samples > 50:
            limit = self._outlier * max(self.error, 0.05)
            residual = min(limit, max(-limit, residual))
        # Forgetting without news would blow the covariance up: stop at a wide prior.
        keep = self._forgetting if p[0][0] + p[1][1] + p[2][2] < 1e4 else 1.0
        spread = px[0] * a + px[1] * b + px[2] * c
        if spread < 0.0 or min(p[0][0], p[1][1], p[2][2]) < 0.0:
            # No covariance any more: rounding has eaten it up. What was learned is kept.
            self._cov = _prior(_SURE)
            return
        gain = 1.0 / (keep + spread)
        k = (px[0] * gain, px[1] * gain, px[2] * gain)
        self.theta = (t[0] + k[0] * residual, t[1] + k[1] * residual, t[2] + k[2] * residual)
        # Exactly symmetric, or rounding adds up until a variance is negative.
        ab, ac, bc = (
            (p[0][1] - k[0] * px[1]) / keep,
            (p[0][2] - k[0] * px[2]) / keep,
            (p[1][2] - k[1] * px[2]) / keep,
        )
        self._cov = (
            ((p[0][0] - k[0] * px[0]) / keep, ab, ac),
            (ab, (p[1][1] - k[1] * px[1]) / keep, bc),
            (ac, bc, (p[2][2] - k[2] * px[2]) / keep),
        )


def _prior(variance: float) -> tuple[_Three, _Three, _Three]:
    return ((variance, 0.0, 0.0), (0.0, variance, 0.0), (0.0, 0.0, variance))


class _Pair:
    """The two models of one replica (or of all)."""

    __slots__ = ("tpot", "ttft")

    def __init__(self, params: LatencyParams, start: _Pair | None = None) -> None:
        self.ttft: LeastSquares = _model(params, start.ttft if start else None)
        self.tpot: LeastSquares = _model(params, start.tpot if start else None)


def _model(params: LatencyParams, start: LeastSquares | None) -> LeastSquares:
    if start is None or not start.samples:
        return LeastSquares(params.forgetting, params.outlier)
    # A replica of the same fleet: believe the fleet, but not for long.
    return LeastSquares(params.forgetting, params.outlier, start.theta, spread=_SURE)


class LatencyBook:
    """All replicas' models. The ledger's observer; :meth:`fit` is what policies read.

    ``version`` changes whenever :meth:`fit` may answer something new.
    """

    def __init__(self, params: LatencyParams | None = None) -> None:
        self._params = params or LatencyParams()
        self._pooled = _Pair(self._params)
        self._own: dict[str, _Pair] = {}
        self._fits: dict[str | None, LatencyFit] = {}
        self._since_published = 0
        self.version = 0

    def first_token(self, replica_id: str, outlook: Outlook, ttft_s: float) -> None:
        """A request dispatched at ``outlook`` had its first token after ``ttft_s``."""
        x = (1.0, outlook.prefill_tokens / 1000.0, float(outlook.requests))
        self._pair(replica_id).ttft.observe(x, ttft_s)
        self._pooled.ttft.observe(x, ttft_s)
        self._count()

    def finished(self, replica_id: str, outlook: Outlook, tpot_s: float, tokens: int) -> None:
        """Its later ``tokens`` came every ``tpot_s`` seconds."""
        x = (1.0, float(outlook.requests), outlook.context_tokens / 1000.0)
        self._pair(replica_id).tpot.observe(x, tpot_s)
        self._pooled.tpot.observe(x, tpot_s)
        self._count()

    def forget(self, replica_id: str) -> None:
        """The replica is gone; one of the same name begins anew."""
        self._own.pop(replica_id, None)
        self._fits.pop(replica_id, None)
        self.version += 1

    def fit(self, replica_id: str | None = None) -> LatencyFit:
        """The fit in force: the replica's own once it has seen enough, else (and for None) the
        fleet's."""
        found = self._fits.get(replica_id)
        if found is None:
            found = self._fits[replica_id] = self._published(replica_id)
        return found

    def error(self, replica_id: str | None = None) -> LatencyError:
        """The published error of one replica's models (None: of the fleet's)."""
        pair = self._pooled if replica_id is None else self._own.get(replica_id, self._pooled)
        ttft, tpot = pair.ttft, pair.tpot
        return LatencyError(ttft.error, tpot.error, ttft.samples, tpot.samples)

    def _pair(self, replica_id: str) -> _Pair:
        pair = self._own.get(replica_id)
        if pair is None:
            pair = self._own[replica_id] = _Pair(self._params, self._pooled)
        return pair

    def _count(self) -> None:
        self._since_published += 1
        if self._since_published >= self._params.publish_every:
            self._since_published = 0
            self._fits.clear()
            self.version += 1

    def _published(self, replica_id: str | None) -> LatencyFit:
        own = None if replica_id is None else self._own.get(replica_id)
        enough = self._params.own_samples
        ttft = own.ttft if own and own.ttft.samples >= enough else self._pooled.ttft
        tpot = own.tpot if own and own.tpot.samples >= enough else self._pooled.tpot
        paces = tpot.rising if self._params.rising else tpot.theta
        return LatencyFit(ttft.theta, paces, min(ttft.samples, tpot.samples))
