"""Means in which older observations count less."""

from __future__ import annotations

import pytest

from services.routing.decay import HALF_LIFE_S, DecayedMean


def test_without_observations_the_prior_counts_alone() -> None:
    """There is no mean of nothing."""
    mean = DecayedMean()

    assert mean.value() is None
    assert mean.estimate(1e9, prior=0.25, prior_weight=5) == 0.25


def test_an_observation_one_half_life_older_counts_half() -> None:
    """3 and 0 then have the mean 1."""
    mean = DecayedMean()
    mean.add(3.0, 100.0)
    mean.add(0.0, 100.0 + HALF_LIFE_S)

    assert mean.value() == pytest.approx(1.0)


def test_the_prior_gains_weight_with_time() -> None:
    """At first it is one observation among others, in the end the only one."""
    mean = DecayedMean()
    for _ in range(3):
        mean.add(1.0, 0.0)

    assert mean.estimate(0.0, prior=0.0, prior_weight=1) == pytest.approx(0.75)
    assert mean.estimate(HALF_LIFE_S, prior=0.0, prior_weight=1) == pytest.approx(0.6)
    assert mean.estimate(1e6, prior=0.0, prior_weight=1) == 0.0


def test_very_old_observations_do_not_overflow() -> None:
    """After years the older of two observations counts nothing."""
    mean = DecayedMean()
    mean.add(1.0, 0.0)
    mean.add(2.0, 1e9)

    assert mean.value() == 2.0
