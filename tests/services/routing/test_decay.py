"""Means that forget."""

from __future__ import annotations

import pytest

from services.routing.decay import HALF_LIFE_S, DecayedMean


def test_nothing_was_seen() -> None:
    """There is no mean of nothing; what is presumed is believed."""
    mean = DecayedMean()

    assert mean.value() is None
    assert mean.believed(1e9, presumed=0.25, doubt=5) == 0.25


def test_the_past_counts_less() -> None:
    """What is a half-life older counts half as much."""
    mean = DecayedMean()
    mean.add(3.0, 100.0)
    mean.add(0.0, 100.0 + HALF_LIFE_S)

    assert mean.value() == pytest.approx(1.0)


def test_what_is_presumed_wins_in_the_end() -> None:
    """At first it is one voice among others; when all else is long ago it is the only one."""
    mean = DecayedMean()
    for _ in range(3):
        mean.add(1.0, 0.0)

    assert mean.believed(0.0, presumed=0.0, doubt=1) == pytest.approx(0.75)
    assert mean.believed(HALF_LIFE_S, presumed=0.0, doubt=1) == pytest.approx(0.6)
    assert mean.believed(1e6, presumed=0.0, doubt=1) == 0.0


def test_ages_have_no_end() -> None:
    """After years without a word the mean is still there, and then nothing is known."""
    mean = DecayedMean()
    mean.add(1.0, 0.0)
    mean.add(2.0, 1e9)

    assert mean.value() == 2.0
