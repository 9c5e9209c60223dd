"""Form fields: the texts of a form as values, with errors that name the field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from gateway.errors import ApiError, invalid
from services.common.money import NANO_PER_USD

_USD_MAX = 10**9
_SIZE = re.compile(r"[0-9]{1,12}")
_DECIMAL = re.compile(r"[+-]?[0-9]{0,12}(?:\.[0-9]{0,12})?")
"""Has no exponent: `1e99` is an integer of a hundred digits, and some exponents are errors."""
_HOURS_MAX = 100 * 366 * 24
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Fields:
    """The fields of a form that was sent. All readers raise ApiError."""

    def __init__(self, form: Mapping[str, str]) -> None:
        self._form = form

    def text(self, name: str) -> str:
        """Return a text without spaces around it. Empty: it was left empty."""
        return self._form.get(name, "").strip()

    def checked(self, name: str) -> bool:
        """Return whether a box was checked."""
        return name in self._form

    def nano_usd(self, name: str) -> int | None:
        """Return an amount of US dollars in nano-dollars. None: it was left empty."""
        text = self.text(name)
        if not text:
            return None
        nano = _scaled(text, NANO_PER_USD)
        if nano is None or abs(nano) > _USD_MAX * NANO_PER_USD:
            raise _wrong(name, "an amount in US dollars, with at most nine decimals")
        return nano

    def size(self, name: str) -> int | None:
        """Return a whole number. None: it was left empty."""
        text = self.text(name)
        if not text:
            return None
        if not _SIZE.fullmatch(text):
            raise _wrong(name, "a whole number")
        return int(text)

    def seconds(self, name: str) -> int | None:
        """Return a whole number of hours in seconds. None: it was left empty."""
        hours = self.size(name)
        if hours is not None and hours > _HOURS_MAX:
            raise _wrong(name, f"at most {_HOURS_MAX} hours")
        return hours and hours * 3600

    def basis_points(self, name: str) -> int:
        """Return a percentage in hundredths of a percent."""
        points = _scaled(self.text(name) or "0", 100)
        if points is None or not 0 <= points <= 10**6:
            raise _wrong(name, "a percentage from 0 to 10000, with at most two decimals")
        return points

    def day(self, name: str) -> datetime | None:
        """Return the beginning of a day, in UTC. None: it was left empty."""
        text = self.text(name)
        if not text:
            return None
        try:
            return datetime.strptime(text if _DAY.fullmatch(text) else "", "%Y-%m-%d").replace(
                tzinfo=UTC
            )
        except ValueError:
            raise _wrong(name, "a day, such as 2027-12-31") from None

    def end_of_day(self, name: str) -> datetime | None:
        """Return the exclusive end of a day, in UTC. None: it was left empty."""
        day = self.day(name)
        try:
            return day and day + timedelta(days=1)
        except OverflowError:
            raise _wrong(name, "a day before 9999-12-31") from None

    def words(self, name: str) -> list[str]:
        """Return the words of a text, which commas, spaces or lines separate."""
        return [word for word in re.split(r"[\s,]+", self.text(name)) if word]


def unknown_action() -> ApiError:
    """Return the refusal of a form whose action is not known."""
    return invalid("action", "`action` must be one of the form's.")


def _scaled(text: str, factor: int) -> int | None:
    """Return a decimal number times a factor. None: it is no such number, or not a whole one."""
    text = text.replace(",", ".").replace("\u2212", "-")
    if not _DECIMAL.fullmatch(text) or not any(map(str.isdigit, text)):
        return None
    scaled = Decimal(text) * factor
    return None if scaled % 1 else int(scaled)


def _wrong(name: str, what: str) -> ApiError:
    return invalid(name, f"`{name}` must be {what}.")
