from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from services.domain.error_reason import ErrorReason
from services.errors import UpstreamError
from services.providers.channel_failures import CAUSES_MAX, REPEAT_S, ChannelFailures
from tests.services.providers.targets import target_of
from tests.stand.clock import FakeClock

TARGET = target_of("m")
REFUSED = UpstreamError(ErrorReason.UPSTREAM_AUTH_FAILED, "It has a key: sk-1.", status=401)
UNREACHABLE = UpstreamError(ErrorReason.UPSTREAM_UNREACHABLE, "It is away.")


def test_each_cause_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """For each channel; the last failure is known in any case."""
    clock = FakeClock()
    failures = ChannelFailures(clock)
    other = replace(TARGET, channel=msgspec.structs.replace(TARGET.channel, name="other"))
    for _ in range(3):
        failures.add(TARGET, REFUSED)
        failures.add(TARGET, UNREACHABLE, "dns: unknown name")
        failures.add(other, REFUSED)
    clock.advance(REPEAT_S)
    failures.add(TARGET, REFUSED)

    lines = [vars(record) for record in caplog.records]
    assert [(line["channel"], line["reason"]) for line in lines] == [
        ("test", "UPSTREAM_AUTH_FAILED"),
        ("test", "UPSTREAM_UNREACHABLE"),
        ("other", "UPSTREAM_AUTH_FAILED"),
        ("test", "UPSTREAM_AUTH_FAILED"),
    ]
    assert "sk-1" not in caplog.text
    last = failures.last(TARGET)
    assert last is not None
    assert last.text == "UPSTREAM_AUTH_FAILED (HTTP 401)"
    assert last.time_s == clock.time()


def test_a_failure_of_the_request_says_nothing_about_the_channel(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The caller learns it, and it may quote the caller."""
    failures = ChannelFailures(FakeClock())
    failures.add(TARGET, UpstreamError(ErrorReason.CONTENT_FILTERED, "It is bad.", status=400))

    assert failures.last(TARGET) is None
    assert not caplog.records


def test_what_is_remembered_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Causes that differ all the time are logged, but not kept."""
    failures = ChannelFailures(FakeClock())
    for number in range(CAUSES_MAX + 10):
        failures.add(TARGET, UNREACHABLE, f"dns: {number}")

    assert len(failures._logged_at) <= CAUSES_MAX
    assert len(caplog.records) == CAUSES_MAX + 10
