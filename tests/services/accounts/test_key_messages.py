"""Scopes of keys, from messages of the contract."""

from __future__ import annotations

import pytest
from pomogator.accounts.v1 import key_service_pb2 as pb

from services.accounts.key_messages import MODELS_BYTES_MAX, scope_from_proto
from services.errors import Failure


@pytest.mark.parametrize(
    "models",
    [["é" * 256] * (MODELS_BYTES_MAX // 512 + 1), [""], ["x" * 513], ["a\0b"]],
    ids=["many", "empty", "long", "NUL"],
)
def test_models_of_a_scope_are_bounded(models: list[str]) -> None:
    """Lookups, lists and audit entries have them: a tenant must not make these large."""
    with pytest.raises(Failure, match=r"scope\.models"):
        scope_from_proto(pb.KeyScope(models=models))
