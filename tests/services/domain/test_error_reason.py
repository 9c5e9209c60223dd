"""The reasons are the contract's."""

from __future__ import annotations

from pomogator.chat.v1 import error_reason_pb2

from services.domain.error_reason import ErrorReason


def test_names_are_those_of_the_contract() -> None:
    """Every reason has the contract's name without its prefix, and none is missing."""
    values = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_number.values()
    names = [value.name.removeprefix("ERROR_REASON_") for value in values]

    assert [reason.value for reason in ErrorReason] == names[1:]
    assert names[0] == "UNSPECIFIED"
    assert all(reason.name == reason.value for reason in ErrorReason)
