"""Maintenance windows in local time: midnight, summer time, zones that do not exist."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from edgewright_contract.compressedmodel import MaintenanceWindow
from edgewright_operator.admission import is_open, misplaced


def window(days: list[str], start: str, end: str, zone: str = "Europe/Berlin") -> MaintenanceWindow:
    return MaintenanceWindow(days=days, start=start, end=end, time_zone=zone)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NIGHT = window(["Mon"], "22:00", "02:00")


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("2026-01-05T20:59:00", False),  # Monday 21:59 in Berlin
        ("2026-01-05T21:00:00", True),
        ("2026-01-06T00:59:00", True),  # Tuesday 01:59: the window began on Monday
        ("2026-01-06T01:00:00", False),
        ("2026-01-05T00:30:00", False),  # Monday 01:30 belongs to Sunday's night
        ("2026-07-06T20:00:00", True),  # summer: 22:00 in Berlin is 20:00 UTC
        ("2026-07-06T19:59:00", False),
    ],
)
def test_a_window_that_passes_midnight_belongs_to_the_day_on_which_it_began(when: str, found: bool) -> None:
    assert is_open(NIGHT, at(when)) is found


@pytest.mark.parametrize(
    ("when", "found"),
    [
        ("2026-03-29T00:30:00", True),  # 01:30 before the clock goes forward
        ("2026-03-29T01:00:00", False),  # 03:00: the hour from 02:00 on did not exist that day
        ("2026-10-25T00:30:00", True),  # 02:30, the first time
        ("2026-10-25T01:30:00", True),  # 02:30, the second time
        ("2026-10-25T02:00:00", False),
    ],
)
def test_the_day_on_which_the_clock_is_changed(when: str, found: bool) -> None:
    assert is_open(window(["Sun"], "01:00", "03:00"), at(when)) is found


def test_no_window_is_always_open_and_equal_ends_are_a_whole_day() -> None:
    assert is_open(None, at("2026-01-05T12:00:00"))
    assert is_open(window(["Mon"], "00:00", "00:00", "Etc/UTC"), at("2026-01-05T23:59:00"))
    assert not is_open(window(["Mon"], "00:00", "00:00", "Etc/UTC"), at("2026-01-06T00:00:00"))


@pytest.mark.parametrize("zone", ["Europe/Berlinn", "", "../../etc/passwd", "/etc/localtime"])
def test_a_zone_that_does_not_exist_is_named(zone: Any) -> None:
    problem = misplaced(window(["Mon"], "01:00", "02:00", zone))
    assert problem is not None
    assert repr(zone) in problem.message
