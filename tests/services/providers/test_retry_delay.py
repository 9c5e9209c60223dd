"""Delays that providers ask for."""

from __future__ import annotations

import json

import pytest

from services.providers.failures import (
    provider_failure,
)
from services.providers.retry_delay import retry_after_s

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("headers", "message", "wait"),
    [
        ({"retry-after": "11"}, "", 11),
        ({"retry-after": "1", "retry-after-ms": "0"}, "", 1),
        ({"retry-after-ms": "1500"}, "", 1.5),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT", "date": DATE}, "", 30),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:07 GMT", "date": DATE}, "", None),
        ({"retry-after": "Sun, 06 Nov 1994 08:50:07 GMT"}, "", None),
        ({"x-ratelimit-reset": "784111781000", "date": DATE}, "", None),
        ({"x-ratelimit-reset": "0784111781000", "date": DATE}, "", 4),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-5"}, "", None),
        ({"retry-after": "999999999"}, "", 86_400),
        ({}, "Please try again in 26.604s. Visit the docs", 26.604),
        ({}, "Please try again in 1m0.36s.", 60.36),
        ({}, "try again in 6ms.", 0.006),
        ({}, "Please retry in 36.5s", 36.5),
        ({}, "Please retry after 20 seconds", 20),
        ({}, "Try again in 2 minutes", 120),
        ({}, "Please retry shortly", None),
        ({}, "Limit 15000, Used 11972", None),
        ({"retry-after": "2"}, "try again in 9s", 2),
    ],
)
def test_the_delay_is_read_from_headers_and_words(
    headers: dict[str, str], message: str, wait: float | None
) -> None:
    """As seconds, milliseconds, dates and sentences. Other values are ignored."""
    assert retry_after_s(headers, message) == (None if wait is None else pytest.approx(wait))


def test_the_delay_of_a_provider_behind_the_provider_is_read() -> None:
    """From the headers within the body, where the answer has none."""
    metadata = {"headers": {"X-RateLimit-Reset": "1759671180000"}}
    body = json.dumps({"error": {"code": 429, "message": "Slow", "metadata": metadata}})
    details = [{"@type": "RetryInfo", "retryDelay": "36s"}]
    google = json.dumps([{"error": {"code": 429, "message": "Slow", "details": details}}])

    date = {"date": "Sun, 05 Oct 2025 13:32:50 GMT"}
    assert provider_failure(429, date, body.encode()).retry_after_s == 10
    assert provider_failure(429, {}, google.encode()).retry_after_s == 36
