from __future__ import annotations

from gateway.rpc.call_metadata import call_metadata, response_headers

TRACE = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")


def test_metadata_have_the_facts_of_a_call() -> None:
    """Key and request id always, the others where they are given."""
    always = (("authorization", "Bearer k"), ("x-request-id", "r"))
    assert call_metadata("k", "r") == always
    assert call_metadata("k", "r", "order 66", dict([TRACE])) == (
        *always,
        TRACE,
        ("idempotency-key", "order 66"),
    )


def test_only_metadata_for_clients_becomes_headers() -> None:
    """A value that would break a header is dropped."""
    pairs = [("x-ratelimit-a", "1"), ("x-pomogator-b", "a\r\nb"), ("set-cookie", "c")]
    assert response_headers(pairs) == {"x-ratelimit-a": "1"}
    assert response_headers([("idempotency-replayed", "true")]) == {"idempotency-replayed": "true"}
