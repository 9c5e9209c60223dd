from __future__ import annotations

import pytest

from services.completions.servicer import call_options


@pytest.mark.parametrize(("named", "kept"), [("chat", "chat"), ("odd", "grpc"), ("", "grpc")])
def test_a_caller_may_name_only_known_apis(named: str, kept: str) -> None:
    """Callers of gRPC may say anything; the call log has APIs that there are."""
    options = call_options("r", {"x-pomogator-surface": named})

    assert options.surface == kept
