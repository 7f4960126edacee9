"""How long to wait before the next try: twice as long each time, up to a bound, and never in step with other nodes."""

import random


def pause_seconds(failures: int, first: float, longest: float, rng: random.Random) -> float:
    """Seconds after so many failures in a row (1 or more): half to all of min(first * 2^(failures - 1), longest).

    An upper half alone, not the whole range: a try at once after a failure would only add to the trouble.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * rng.uniform(0.5, 1.0)
