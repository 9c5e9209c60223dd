"""Figures with bounds, and their report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple


class Figure(NamedTuple):
    """Measured figure with its bound."""

    name: str
    value: float
    unit: str
    bound: float
    """Highest allowed value, or lowest."""
    at_least: bool = False
    """Whether `bound` is the least."""

    @property
    def passes(self) -> bool:
        """Whether it is within its bound."""
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def conclude(figures: Sequence[Figure]) -> int:
    """Prints the figures and the load average. Returns the exit code: 1 is a miss."""
    for figure in figures:
        sign = "≥" if figure.at_least else "≤"
        value = f"{figure.value:.4g} {figure.unit}".strip()
        bound = f"{sign} {figure.bound:g} {figure.unit}".strip()
        print(f"{'PASS' if figure.passes else 'MISS'}  {figure.name}: {value} ({bound})")
    load = os.getloadavg()
    print(f"load average of the machine: {load[0]:.1f} {load[1]:.1f} {load[2]:.1f}", flush=True)
    return 0 if all(figure.passes for figure in figures) else 1


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * len(ordered)))]
