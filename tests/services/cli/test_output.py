from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.output import (
    read_address,
    read_duration,
    read_time,
    read_usd,
    show_time,
    show_usd,
)


@given(st.integers(-(10**18), 10**18))
def test_money_survives_reading_and_writing(nano: int) -> None:
    """Every amount is formatted exactly, and parses to the same amount."""
    assert read_usd(show_usd(nano)) == nano


@pytest.mark.parametrize("text", ["", "x", "1.0000000001", "NaN", "Infinity", "1e400", "1,5"])
def test_inexact_money_is_refused(text: str) -> None:
    """An amount that is not whole nano-USD is refused, not rounded."""
    with pytest.raises(argparse.ArgumentTypeError):
        read_usd(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-01", "2030-01-01T00:00:00Z"),
        ("2030-01-01T12:00:00Z", "2030-01-01T12:00:00Z"),
        ("2030-01-01T12:00+02:00", "2030-01-01T10:00:00Z"),
    ],
)
def test_times_are_utc_unless_they_say_otherwise(text: str, shown: str) -> None:
    """A time without a zone is UTC; another zone is converted."""
    assert show_time(read_time(text)) == shown


def test_an_invalid_time_is_refused() -> None:
    """The error is for argparse."""
    with pytest.raises(argparse.ArgumentTypeError):
        read_time("tomorrow")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("5s", 5), ("30m", 1800), ("24h", 86400), ("7d", 604800)],
)
def test_durations_are_whole(text: str, seconds: int) -> None:
    """A number of seconds, or of the unit of its letter."""
    assert read_duration(text).seconds == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1h", "1w", "1 h", "1" * 30])
def test_an_invalid_duration_is_refused(text: str) -> None:
    """Signs, fractions and unknown units are errors."""
    with pytest.raises(argparse.ArgumentTypeError):
        read_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:8080", "localhost:65535"])
def test_addresses_are_kept_as_they_are(text: str) -> None:
    """IPv6 has brackets."""
    assert read_address(text) == text


@pytest.mark.parametrize("text", ["localhost", ":80", "host:", "host:http", "host:65536", "h:-1"])
def test_an_invalid_address_is_refused(text: str) -> None:
    """A port that is too large would become another one in gRPC."""
    with pytest.raises(argparse.ArgumentTypeError):
        read_address(text)
