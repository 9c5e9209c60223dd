"""Askers: the tenant or operator of a visit, whose calls the console makes to the service."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple, Protocol, TypeVar

import grpc

from gateway.console.visit import Visit
from gateway.rpc.call_metadata import call_metadata
from gateway.rpc.status_mapping import to_api_error
from services.common.call_names import OPERATOR_HEADER, REQUEST_ID_HEADER

TIMEOUT_S = 15.0

_Request = TypeVar("_Request", contravariant=True)  # noqa: PLC0105 - private
_Answer = TypeVar("_Answer", covariant=True)  # noqa: PLC0105


class Asker(Protocol):
    """A tenant or an operator."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of calls, with the credential where the channel needs one."""

    @property
    def request_id(self) -> str:
        """ID of the browser's request, which the service's logs name, too."""


class TenantAsker(NamedTuple):
    """A tenant. Calls have the tenant's key."""

    key: str
    request_id: str

    def __repr__(self) -> str:
        return object.__repr__(self)  # Without the key.

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of calls."""
        return call_metadata(self.key, self.request_id)


class OperatorAsker(NamedTuple):
    """An operator. The channel to the operators' services needs no credential."""

    request_id: str
    name: str
    """As the operator has signed in; empty without one. Nothing proves it."""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of calls."""
        request_id = (REQUEST_ID_HEADER, self.request_id)
        return (request_id, (OPERATOR_HEADER, self.name)) if self.name else (request_id,)


def tenant_of(visit: Visit) -> TenantAsker:
    """Return the tenant of a visit."""
    return TenantAsker(visit.session.key, visit.request_id)


def operator_of(visit: Visit) -> OperatorAsker:
    """Return the operator of a visit."""
    return OperatorAsker(visit.request_id, visit.session.name)


class _Method(Protocol[_Request, _Answer]):
    """A method of a stub."""

    def __call__(
        self, request: _Request, /, *, metadata: tuple[tuple[str, str], ...], timeout: float
    ) -> Awaitable[_Answer]:
        """Call it."""


async def ask(
    method: _Method[_Request, _Answer],
    request: _Request,
    asker: Asker,
    timeout_s: float = TIMEOUT_S,
) -> _Answer:
    """Call a method of the service for an asker. Raise ApiError where it fails."""
    try:
        return await method(request, metadata=asker.metadata, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise to_api_error(error, asker.request_id) from None
