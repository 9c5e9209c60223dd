"""Figures: amounts, counts and times as text, as a language writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal

from services.common.money import NANO_PER_USD, exact_usd

PICO_USD_PER_MTOK = 10**6
"""Picodollars per token of one US dollar per million tokens."""
TOKENS_PER_MTOK = 10**6

_NARROW_SPACE = "\u202f"
_MARKS: Mapping[str, tuple[str, str]] = {"en": (",", "."), "ru": (_NARROW_SPACE, ",")}
"""Marks of thousands and of decimals, by language."""


class Figures:
    """Writes figures in one language."""

    def __init__(self, language: str) -> None:
        self._thousands, self._point = _MARKS[language]
        self._sign_first = language == "en"

    def count(self, number: float) -> str:
        """Write a whole number."""
        return f"{int(number):,}".replace(",", self._thousands)

    def usd(self, nano_usd: int, decimals_max: int = 6) -> str:
        """Write an amount: at least two decimals, more where it has them."""
        amount = Decimal(nano_usd) / NANO_PER_USD
        return self._money(amount, decimals_max)

    def per_mtok(self, pico_usd: int) -> str:
        """Write a price of a token as that of a million tokens."""
        return self._money(Decimal(pico_usd) / PICO_USD_PER_MTOK, 6)

    def usd_per_mtok(self, usd: str) -> str:
        """Write a price of a token in US dollars as that of a million tokens."""
        return self._money(Decimal(usd or 0) * TOKENS_PER_MTOK, 6)

    def decimal(self, number: float, decimals: int = 1) -> str:
        """Write a number with a fixed number of decimals."""
        return self._marked(f"{number:,.{decimals}f}")

    def _money(self, amount: Decimal, decimals_max: int) -> str:
        rounded = abs(amount).quantize(Decimal(1).scaleb(-decimals_max), ROUND_HALF_UP)
        text = f"{rounded:,f}"
        whole, _, decimals = text.partition(".")
        decimals = decimals.rstrip("0").ljust(2, "0")
        text = self._marked(f"{whole}.{decimals}")
        sign = "\u2212" if amount < 0 and rounded else ""
        return f"{sign}${text}" if self._sign_first else f"{sign}{text}\u00a0$"

    def _marked(self, text: str) -> str:
        marks = {",": self._thousands, ".": self._point}
        return "".join(marks.get(char, char) for char in text)


FIGURES: Mapping[str, Figures] = {language: Figures(language) for language in _MARKS}


def day(seconds: float) -> str:
    """Write the day of a time, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def minute(seconds: float) -> str:
    """Write a time to the minute, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def second(seconds: float) -> str:
    """Write a time to the second, in UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def as_label(text: str) -> str:
    """Begin a text, which may stand in a sentence elsewhere, with a capital letter."""
    return text[:1].upper() + text[1:]


FILTERS: Mapping[str, Callable[..., str]] = {
    "day": day,
    "minute": minute,
    "second": second,
    "exact_usd": exact_usd,
    "as_label": as_label,
}
"""Filters of the templates that are the same in all languages."""
