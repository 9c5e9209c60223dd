from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.call_options import (
    HeaderOptions,
    deadline_s,
    idempotency_key,
    parameter_policy,
    trace_context,
)
from services.common.key_format import new_secret

CONFIG = EdgeConfig(deadline_s=100.0)
KEY = new_secret()


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
    given = CIMultiDict({name: value})
    assert (idempotency_key(given), trace_context(given)) == ("", {})


@pytest.mark.parametrize("key", ["k", "order 66", '"8e03978e-40d5"', "~" * 255])
def test_a_printable_idempotency_key_is_passed(key: str) -> None:
    """The key reaches the service unchanged."""
    assert idempotency_key(CIMultiDict({"Idempotency-Key": key})) == key


@pytest.mark.parametrize("keys", [[""], ["é"], ["a\tb"], ["a" * 256], ["a", "a"]])
def test_a_malformed_idempotency_key_is_refused(keys: list[str]) -> None:
    """Without it a retry would be a second completion."""
    given = CIMultiDict([("Idempotency-Key", key) for key in keys])
    with pytest.raises(ApiError) as caught:
        idempotency_key(given)
    assert (caught.value.status, caught.value.param) == (400, "idempotency-key")


@pytest.mark.parametrize(
    "tags", ["a=\udcff", "a=\u0451", "a", "a=b,a=c", "a=b=c", "a=b\x7f", "a=b,\u3000c=d"]
)
def test_malformed_labels_are_refused(tags: str) -> None:
    """GRPC refuses to carry some of them, which would be a fault of ours."""
    with pytest.raises(ApiError) as caught:
        HeaderOptions.read(headers(authorization=f"Bearer {KEY}", x_pomogator_tags=tags), CONFIG)
    assert (caught.value.status, caught.value.param) == (400, "x-pomogator-tags")


def test_labels_in_several_headers_are_those_of_one() -> None:
    """The service gets them in one entry of its metadata."""
    given = CIMultiDict([("x-pomogator-tags", "a=b c"), ("x-pomogator-tags", " d=~")])
    given["authorization"] = f"Bearer {KEY}"
    assert HeaderOptions.read(given, CONFIG).call.tags == "a=b c, d=~"


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
    assert parameter_policy(headers()) == ""
    assert parameter_policy(headers(x_pomogator_mode="adapt")) == "adapt"
    assert parameter_policy(headers(x_pomogator_mode="strict")) == "strict"
    with pytest.raises(ApiError):
        parameter_policy(headers(x_pomogator_mode="loose"))
