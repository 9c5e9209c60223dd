"""The table of reasons: one row per reason, and the facts of each row."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from services.domain.error_reason import ErrorReason
from services.reason_table import REASONS, ROWS, Reason

CHANNEL_FAULTS = {
    "UPSTREAM_UNREACHABLE",
    "UPSTREAM_BAD_RESPONSE",
    "UPSTREAM_ERROR",
    "UPSTREAM_DISCONNECTED",
    "UPSTREAM_AUTH_FAILED",
    "UPSTREAM_OVERLOADED",
    "UPSTREAM_RATE_LIMITED",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_STALLED",
}
EXPECTED: list[tuple[str, Callable[[Reason], object], dict[str, object]]] = [
    (
        "retryable",
        lambda row: row.retryable,
        dict.fromkeys(CHANNEL_FAULTS | {"MODEL_NOT_FOUND"}, True),
    ),
    ("channel_fault", lambda row: row.channel_fault, dict.fromkeys(CHANNEL_FAULTS, True)),
    (
        "key_fault",
        lambda row: row.key_fault,
        {"UPSTREAM_AUTH_FAILED": True, "UPSTREAM_RATE_LIMITED": True},
    ),
    (
        "opens_for_s",
        lambda row: row.opens_for_s,
        {"UPSTREAM_AUTH_FAILED": 60.0, "UPSTREAM_RATE_LIMITED": 1.0},
    ),
    (
        "lacks_funds",
        lambda row: row.lacks_funds,
        {"INSUFFICIENT_QUOTA": True, "BUDGET_EXCEEDED": True},
    ),
    (
        "end",
        lambda row: row.end,
        {
            "UPSTREAM_DISCONNECTED": "upstream_eof",
            "UPSTREAM_STALLED": "upstream_stall",
            "UPSTREAM_TIMEOUT": "upstream_stall",
            "KEY_REVOKED": "revoked",
            "KEY_EXPIRED": "revoked",
            "INSUFFICIENT_QUOTA": "no_funds",
            "BUDGET_EXCEEDED": "no_funds",
            "DEADLINE": "deadline",
            "SHUTTING_DOWN": "shutdown",
            "CALL_ABORTED": "aborted",
        },
    ),
    (
        "message",
        lambda row: row.message,
        {
            "UPSTREAM_AUTH_FAILED": "The provider refused the gateway's own account.",
            "UPSTREAM_BAD_RESPONSE": "The provider gave an answer that the gateway cannot read.",
            "MODEL_NOT_FOUND": "Invalid model specified",
        },
    ),
    ("param", lambda row: row.param, {"MODEL_NOT_FOUND": "model"}),
]


def test_each_reason_of_the_contract_has_exactly_one_row() -> None:
    """And nothing that the contract lacks."""
    listed = [row.reason for row in ROWS]

    assert len(listed) == len(set(listed)) == len(REASONS)
    assert set(listed) == set(ErrorReason)


def test_no_reason_has_the_code_ok() -> None:
    """OK never stands for a failure."""
    assert all(row.grpc is not grpc.StatusCode.OK for row in ROWS)


@pytest.mark.parametrize(("column", "read", "expected"), EXPECTED)
def test_a_column_holds_its_facts(
    column: str, read: Callable[[Reason], object], expected: dict[str, object]
) -> None:
    """The rows where the column is set, and nowhere else."""
    found = {row.reason: read(row) for row in ROWS if read(row)}

    assert found == expected, column


def test_faults_of_a_key_or_channel_are_retryable() -> None:
    """A key's fault is its channel's, and no channel's fault lies with the request."""
    assert all(row.channel_fault for row in ROWS if row.key_fault or row.opens_for_s)
    assert all(row.retryable for row in ROWS if row.channel_fault)
