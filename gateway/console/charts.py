"""Charts: series of numbers as the bars of an SVG picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 720
HEIGHT = 120
_GAP_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in the picture's units."""

    x: float
    y: float
    width: float
    height: float
    label: str
    value: int


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of equal width, the highest of which fills the picture."""

    bars: Sequence[Bar]
    highest: int
    first_label: str
    last_label: str


def bar_chart(values: Sequence[tuple[str, int]]) -> Chart:
    """Return the chart of values with their labels, from left to right."""
    highest = max((value for _, value in values), default=0)
    step = WIDTH / max(1, len(values))
    bars = [
        Bar(
            x=round(index * step + step * _GAP_SHARE / 2, 2),
            y=round(HEIGHT - (height := HEIGHT * value / highest if highest else 0), 2),
            width=round(step * (1 - _GAP_SHARE), 2),
            height=round(height, 2),
            label=label,
            value=value,
        )
        for index, (label, value) in enumerate(values)
    ]
    labels = [label for label, _ in values] or [""]
    return Chart(bars, highest, labels[0], labels[-1])
