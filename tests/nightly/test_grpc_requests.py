"""Random gRPC requests, the short form."""

from __future__ import annotations

from tests.nightly.grpc_requests import check_cases


def test_no_grpc_request_is_a_fault() -> None:
    """The same cases each time; `make nightly` tries more."""
    assert check_cases(800, seed=1).keys() >= {"GetBalance OK", "CreateChatCompletion OK"}
