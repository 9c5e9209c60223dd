from __future__ import annotations

from gateway.console.charts import HEIGHT, WIDTH, bar_chart


def test_the_highest_bar_fills_the_picture() -> None:
    """The others are in proportion, and all of them are inside."""
    chart = bar_chart([("mon", 5), ("tue", 0), ("wed", 10)])

    assert [bar.height for bar in chart.bars] == [HEIGHT / 2, 0, HEIGHT]
    assert all(bar.y + bar.height == HEIGHT for bar in chart.bars)
    assert all(0 <= bar.x < bar.x + bar.width <= WIDTH for bar in chart.bars)
    assert (chart.first_label, chart.last_label, chart.highest) == ("mon", "wed", 10)


def test_a_chart_without_values_is_empty() -> None:
    """Without days, or with days without a charge, no bar has a height."""
    assert bar_chart([]).highest == 0
    assert [bar.height for bar in bar_chart([("mon", 0)]).bars] == [0]
