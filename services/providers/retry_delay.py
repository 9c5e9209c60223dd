"""Retry delay: how long a provider asks to wait, in headers or in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

WAIT_MAX_S = 86_400.0
"""Upper bound of a plausible retry delay."""

_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_SPOKEN = re.compile(
    r"(?:try again|retry|wait|reset)\w*\W+(?:(?:after|in|for|at least)\W+){0,2}"
    r"((?:\d{1,9}(?:\.\d{1,9})?\s?(?:ms|milliseconds?|h|hours?|m|min|minutes?|s|sec|seconds?)\b\s?|"
    r"\d{1,9}(?:\.\d{1,9})?[hm](?=\d))+)",
    re.IGNORECASE | re.ASCII,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s?([a-z]+)", re.IGNORECASE | re.ASCII)
_UNITS_S: Mapping[str, float] = {"ms": 0.001, "mi": 60.0, "m": 60.0, "h": 3600.0, "s": 1.0}


def retry_after_s(headers: Mapping[str, str], message: str = "") -> float | None:
    """The retry delay that the provider asks for, in seconds. None if it asks for none.

    The longer of `retry-after` and `retry-after-ms` counts: Azure sends 1 and 0. Dates and
    `x-ratelimit-reset` (OpenRouter's, milliseconds since 1970) are relative to the response's
    `date`, so that clocks need not agree. Last, the message: "Please try again in 1m0.36s."
    """
    now = _date(headers.get("date", ""))
    waits = [
        _number(headers.get("retry-after", "")),
        _number(headers.get("retry-after-ms", ""), 0.001),
        _until(_date(headers.get("retry-after", "")), now),
    ]
    given = [wait for wait in waits if wait is not None]
    if given:
        return min(max(given), WAIT_MAX_S)
    wait = _until(_epoch(headers.get("x-ratelimit-reset", "")), now)
    wait = _spoken(message) if wait is None else wait
    return None if wait is None else min(wait, WAIT_MAX_S)


def _spoken(message: str) -> float | None:
    """The delay in a sentence such as "Please try again in 1m0.36s."."""
    found = _SPOKEN.search(message)
    if found is None:
        return None
    parts = _DURATION.findall(found[1])
    return sum(float(number) * _unit_s(unit.lower()) for number, unit in parts)


def _unit_s(unit: str) -> float:
    if unit.startswith("milli"):
        return 0.001
    return _UNITS_S.get(unit[:2]) or _UNITS_S[unit[0]]


def _number(text: str, unit_s: float = 1.0) -> float | None:
    return float(text) * unit_s if _NUMBER.fullmatch(text.strip()) else None


def _date(text: str) -> float | None:
    """Seconds since 1970 of an HTTP date (RFC 9110, section 5.6.7)."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _epoch(text: str) -> float | None:
    """Seconds since 1970, from seconds or milliseconds. None for small numbers: they are delays."""
    if not re.fullmatch(r"\d{10}|\d{13}", text, re.ASCII):
        return None
    return int(text) / (1000 if len(text) == 13 else 1)


def _until(then: float | None, now: float | None) -> float | None:
    """Seconds from `now` to `then`. None if one is unknown or the time has passed."""
    if then is None or now is None or then < now:
        return None
    return then - now
