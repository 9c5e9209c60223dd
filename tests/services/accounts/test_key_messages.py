"""Scopes of keys, from messages of the contract."""

from __future__ import annotations

import pytest
from pomogator.accounts.v1 import key_service_pb2 as pb

from services.accounts.key_messages import MODELS_MAX, scope_from_proto
from services.errors import Failure


@pytest.mark.parametrize(
    "models", [["x"] * (MODELS_MAX + 1), [""], ["x" * 513], ["a\0b"]], ids=["many", "", "x*", "NUL"]
)
def test_models_of_a_scope_are_bounded(models: list[str]) -> None:
    """Each lookup of the key reads them."""
    with pytest.raises(Failure, match=r"scope\.models"):
        scope_from_proto(pb.KeyScope(models=models))
