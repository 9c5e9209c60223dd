from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import CLOSING, FINAL, FINER_CODES, ROWS, ApiError, finer, invalid

PROTO = Path(__file__).parents[2] / "proto/pomogator/chat/v1/error_reason.proto"
DOCUMENTED = re.compile(
    r"  // [A-Z_]+\. (?P<status>\d{3})(?: `(?P<type>\w+)`, `(?P<code>\w+)`)?[.,]"
    r"(?:.*\n  //)*.*\n  ERROR_REASON_(?P<name>\w+) = "
)


def documented() -> list[tuple[str, int, str | None, str | None]]:
    """What the contract's comments promise: name, status, type, code."""
    return [
        (match["name"], int(match["status"]), match["type"], match["code"])
        for match in DOCUMENTED.finditer(PROTO.read_text())
    ]


def test_every_reason_has_a_row() -> None:
    """But the one that is not to be used."""
    assert ROWS.keys() == set(reasons.ErrorReason.values()) - {reasons.ERROR_REASON_UNSPECIFIED}


def test_every_reason_is_documented() -> None:
    """The pattern that reads the comments misses none."""
    assert len(documented()) == len(ROWS)


@pytest.mark.parametrize(("name", "status", "type_", "code"), documented())
def test_rows_are_what_the_contract_says(
    name: str, status: int, type_: str | None, code: str | None
) -> None:
    """The comment in the contract and the table agree."""
    row = ROWS[reasons.ErrorReason.Value(f"ERROR_REASON_{name}")]
    assert row.status == status
    if type_ is not None:  # CLIENT_CLOSED is for logs only
        assert (row.type, row.code) == (type_, code)


def test_a_body_has_its_four_keys() -> None:
    """Also where there is nothing to say."""
    error = ApiError(reasons.ERROR_REASON_INTERNAL, "No.")
    assert json.loads(error.body()) == {
        "error": {
            "message": "No.",
            "type": "server_error",
            "param": None,
            "code": "internal_error",
        }
    }


def test_the_param_is_named() -> None:
    """A fault of a field says which."""
    assert json.loads(invalid("top_p", "No.").body())["error"]["param"] == "top_p"


@pytest.mark.parametrize("code", FINER_CODES)
def test_finer_codes_keep_their_reasons_status(code: str) -> None:
    """They say more, and nothing else."""
    error = finer(code, "No.")
    assert (error.status, error.code) == (ROWS[FINER_CODES[code]].status, code)


@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"),
    [(0.0, "0", "0"), (0.0001, "1", "1"), (1.0, "1", "1000"), (1.2, "2", "1200")],
)
def test_retry_after_is_never_too_early(wait_s: float, seconds: str, milliseconds: str) -> None:
    """Whole seconds are rounded up; the SDKs also read milliseconds."""
    error = ApiError(reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED, "No.", retry_after_s=wait_s)
    assert error.headers() == {"Retry-After": seconds, "retry-after-ms": milliseconds}


def test_a_long_wait_is_no_wait_for_sdks() -> None:
    """Above a minute they would give up, or come back too early: they are told not to retry."""
    error = ApiError(reasons.ERROR_REASON_RATE_LIMIT_EXCEEDED, "No.", retry_after_s=61)
    assert error.headers()["x-should-retry"] == "false"


@pytest.mark.parametrize("reason", sorted(FINAL))
def test_final_errors_are_not_retried(reason: reasons.ErrorReason.ValueType) -> None:
    """SDKs retry 409, 429 and 5xx, unless they are told not to."""
    assert ApiError(reason, "No.").headers()["x-should-retry"] == "false"


def test_who_has_no_key_is_told_the_scheme() -> None:
    """RFC 9110 wants `WWW-Authenticate` with every 401."""
    for reason, row in ROWS.items():
        headers = ApiError(reason, "No.").headers()
        assert (headers.get("WWW-Authenticate") == "Bearer") == (row.status == 401)


def test_only_faults_of_the_connection_close_it() -> None:
    """A key-alive connection survives a bad request, but not bad framing."""
    assert {ROWS[reason].status for reason in CLOSING} == {400, 408, 413, 431}
    assert not invalid("n", "No.").closes
