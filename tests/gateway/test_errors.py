from __future__ import annotations

import json

import pytest

from gateway.errors import (
    JSON_ERROR_CODES,
    REASONS,
    ROWS,
    ApiError,
    HttpReason,
    invalid,
    json_error,
)
from services.domain.error_reason import ErrorReason
from tests.gateway.error_reasons import DocumentedReason, documented_reasons


def test_every_reason_has_one_row() -> None:
    """The table covers the enum."""
    assert REASONS.keys() == set(ErrorReason)
    assert len(ROWS) == len(REASONS)


def test_every_reason_is_documented() -> None:
    """The pattern that reads the comments misses none."""
    assert len(documented_reasons()) == len(ROWS)


@pytest.mark.parametrize("documented", documented_reasons(), ids=lambda each: each.name)
def test_rows_are_what_the_contract_says(documented: DocumentedReason) -> None:
    """The comment in the contract and the table agree."""
    row = REASONS[ErrorReason(documented.name)]
    assert row.http == documented.status
    if documented.type is not None:  # CLIENT_CLOSED is for logs only
        assert (row.type, row.code) == (documented.type, documented.code)


def test_a_body_has_its_four_keys() -> None:
    """A body has all four keys, `param` also where no field is at fault."""
    error = ApiError(ErrorReason.INTERNAL, "No.")
    assert json.loads(error.body()) == {
        "error": {
            "message": "No.",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
    }


def test_the_field_at_fault_is_named() -> None:
    """`param` names the field."""
    assert json.loads(invalid("top_p", "No.").body())["error"]["param"] == "top_p"


@pytest.mark.parametrize("code", sorted(JSON_ERROR_CODES))
def test_a_specific_code_changes_nothing_else(code: str) -> None:
    """The status remains that of the reason."""
    error = json_error(code, "No.")
    assert (error.status, error.code) == (400, code)


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [(0.0, "0", "0"), (0.0001, "1", "1"), (1.0, "1", "1000"), (1.2, "2", "1200")],
)
def test_retry_after_is_never_too_early(wait_s: float, seconds: str, milliseconds: str) -> None:
    """Whole seconds are rounded up; the SDKs also read milliseconds."""
    error = ApiError(ErrorReason.RATE_LIMIT_EXCEEDED, "No.", retry_after_s=wait_s)
    assert error.headers() == {"Retry-After": seconds, "retry-after-ms": milliseconds}


def test_a_wait_above_a_minute_forbids_retries() -> None:
    """With a longer Retry-After, SDKs would give up or retry too early."""
    error = ApiError(ErrorReason.RATE_LIMIT_EXCEEDED, "No.", retry_after_s=61)
    assert error.headers()["x-should-retry"] == "false"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_final_errors_forbid_retries(row: HttpReason) -> None:
    """SDKs retry 409, 429 and 5xx unless `x-should-retry` forbids it."""
    headers = ApiError(row.reason, "No.").headers()
    assert ("x-should-retry" in headers) == row.final


def test_final_errors() -> None:
    """Errors that stay the same after a wait, and those where the time is already over."""
    assert {row.code for row in ROWS if row.final} == {
        "insufficient_quota",
        "budget_exceeded",
        "already_exists",
        "internal_error",
        "upstream_auth_failed",
        "deadline_exceeded",
        "etag_mismatch",
        "call_aborted",
    }


def test_every_401_names_the_scheme_and_counts_as_failed_authentication() -> None:
    """RFC 9110 wants `WWW-Authenticate` with every 401."""
    for row in ROWS:
        headers = ApiError(row.reason, "No.").headers()
        assert (headers.get("WWW-Authenticate") == "Bearer") == (row.http == 401)
        assert row.failed_auth == (row.http == 401)


def test_only_faults_of_the_connection_close_it() -> None:
    """A kept-alive connection survives a bad request, but not bad framing."""
    assert {row.code for row in ROWS if row.closes} == {
        "bad_http",
        "request_timeout",
        "request_too_large",
        "headers_too_large",
    }


def test_only_overload_lowers_the_concurrency_limit() -> None:
    """A rate limit or an unreachable service says nothing about the capacity of services."""
    assert {row.code for row in ROWS if row.lowers_limit} == {"overloaded"}
