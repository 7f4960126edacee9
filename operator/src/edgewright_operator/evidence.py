"""Evidence that may be looked at again and again: e-values, as natural logarithms. Pure.

An e-value is a bet against "all is well". Were all well, it would ever reach 1/a with a chance of at most a (Ville's
inequality, 1939), however often one looks; the product of independent ones is one again, and so is one that is capped.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import exp, log

_SHARES = (0.01, 0.05, 0.2, 0.5, 0.9)
"""How far between the limit and 1 the true rate is bet to lie, with equal stakes."""
_SHIFTS = (1.0, 2.0, 3.0)
"""By how many spreads a ratio is bet to lie above its limit, with equal stakes."""
SPREAD = 0.15
"""Standard deviation of ln(ratio) between nodes of a class that run the same: what latency and memory scatter by."""
_LEAST = 1e-6
_ALIKE = 4096


@lru_cache(maxsize=_ALIKE)
def rate_above(bad: float, total: float, limit: float) -> float:
    """Evidence that a rate is above `limit`, from `bad` of `total` independent trials (fractions are allowed)."""
    if limit >= 1.0 or total <= 0.0:
        return 0.0
    limit = max(limit, _LEAST)
    bets = []
    for share in _SHARES:
        rate = limit + (1.0 - limit) * share
        bets.append(bad * log(rate / limit) + (total - bad) * log((1.0 - rate) / (1.0 - limit)))
    return _mean(bets)


@lru_cache(maxsize=_ALIKE)
def ratio_above(ratio: float, limit: float) -> float:
    """Evidence that a node's true ratio is above `limit`, where what is measured scatters by SPREAD around it."""
    if ratio <= 0.0 or limit <= 0.0:
        return 0.0
    distance = log(ratio / limit) / SPREAD
    return _mean([shift * distance - shift * shift / 2.0 for shift in _SHIFTS])


def _mean(bets: Sequence[float]) -> float:
    most = max(bets)
    return most + log(sum(exp(bet - most) for bet in bets) / len(bets))
