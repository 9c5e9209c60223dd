from __future__ import annotations

import json

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy
from pomogator.chat.v1 import chat_completion_service_pb2 as chat

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.rpc.call_metadata import (
    NOTES_MAX_BYTES,
    call_metadata,
    deadline_s,
    notes_header,
    parameter_policy,
    response_headers,
)

CONFIG = EdgeConfig(deadline_s=100.0)


def headers(**values: str) -> CIMultiDictProxy[str]:
    """Return headers, with `-` for `_` in their names."""
    return CIMultiDictProxy(
        CIMultiDict({name.replace("_", "-"): value for name, value in values.items()})
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("traceparent", "00-xyz"),
        ("tracestate", "\xe9"),
        ("grpc-timeout", "1S"),
        ("cookie", "a=b"),
    ],
)
def test_malformed_and_unknown_headers_are_not_passed(name: str, value: str) -> None:
    """GRPC would refuse some, and the service trusts its metadata."""
    request = make_mocked_request("POST", "/", headers={name: value})
    assert [key for key, _ in call_metadata(request.headers, "k", "r")] == [
        "authorization",
        "x-request-id",
    ]


@pytest.mark.parametrize("key", ["k", "order 66", '"8e03978e-40d5"', "~" * 255])
def test_a_printable_idempotency_key_is_passed(key: str) -> None:
    """The key reaches the service unchanged."""
    request = make_mocked_request("POST", "/", headers={"Idempotency-Key": key})
    assert call_metadata(request.headers, "k", "r")[-1] == ("idempotency-key", key)


@pytest.mark.parametrize("keys", [[""], ["é"], ["a\tb"], ["a" * 256], ["a", "a"]])
def test_a_malformed_idempotency_key_is_refused(keys: list[str]) -> None:
    """Without it a retry would be a second completion."""
    given = CIMultiDict([("Idempotency-Key", key) for key in keys])
    with pytest.raises(ApiError) as caught:
        call_metadata(given, "k", "r")
    assert (caught.value.status, caught.value.param) == (400, "idempotency-key")


@pytest.mark.parametrize(
    ("given", "whole", "seconds"),
    [
        ({}, True, 100.0),
        ({"x_pomogator_timeout": "5"}, False, 5.0),
        ({"x_pomogator_timeout": "500"}, False, 100.0),
        ({"x_stainless_read_timeout": "60"}, True, 60.0),
        ({"x_stainless_read_timeout": "60"}, False, 100.0),
        ({"x_stainless_read_timeout": "None"}, True, 100.0),
        ({"x_pomogator_timeout": "5", "x_stainless_read_timeout": "60"}, True, 5.0),
    ],
)
def test_the_shortest_deadline_applies(given: dict[str, str], whole: bool, seconds: float) -> None:
    """An SDK's read timeout does not limit a stream, which is kept alive."""
    assert deadline_s(headers(**given), CONFIG, whole=whole) == seconds


@pytest.mark.parametrize("value", ["", "0", "-1", "nan", "inf", "soon"])
def test_a_malformed_deadline_is_refused(value: str) -> None:
    """A deadline is a number of seconds above zero."""
    with pytest.raises(ApiError) as caught:
        deadline_s(headers(x_pomogator_timeout=value), CONFIG, whole=True)
    assert caught.value.param == "x-pomogator-timeout"


def test_the_mode_sets_the_parameter_policy() -> None:
    """Without the header the key's policy applies."""
    assert parameter_policy(headers()) == chat.PARAMETER_POLICY_UNSPECIFIED
    assert parameter_policy(headers(x_pomogator_mode="adapt")) == chat.PARAMETER_POLICY_ADAPT
    assert parameter_policy(headers(x_pomogator_mode="strict")) == chat.PARAMETER_POLICY_STRICT
    with pytest.raises(ApiError):
        parameter_policy(headers(x_pomogator_mode="loose"))


def test_only_metadata_for_clients_becomes_headers() -> None:
    """A value that would break a header is dropped."""
    pairs = [("x-ratelimit-a", "1"), ("x-pomogator-b", "a\r\nb"), ("set-cookie", "c")]
    assert response_headers(pairs) == {"x-ratelimit-a": "1"}
    assert response_headers([("idempotency-replayed", "true")]) == {"idempotency-replayed": "true"}


def test_the_notes_header_holds_whole_notes() -> None:
    """The value is JSON in ASCII, with as many notes as fit."""
    note = chat.Note(param="p", action=chat.NOTE_ACTION_CLAMPED, detail="ж" * 100)
    value = notes_header([note] * 20)["x-pomogator-notes"]
    assert value.isascii()
    assert len(value) <= NOTES_MAX_BYTES
    assert json.loads(value) == [{"param": "p", "action": "clamped", "detail": "ж" * 100}] * 3
    assert notes_header([]) == {}
