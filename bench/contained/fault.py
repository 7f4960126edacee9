"""The six kinds of bad release, simulated and real."""

from enum import StrEnum


class Fault(StrEnum):
    """What is wrong with a release."""

    SLOW = "slow"
    WRONG = "wrong"
    NAN = "nan"
    CRASHING = "crashing"
    DRIFTING = "drifting"
    MEMORY = "memory"
