"""Operators' token: credential of operators' listeners that no file permission protects."""

from __future__ import annotations

import grpc

from services.common.request_headers import has_bearer_token
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.rpc.call_context import Context, Continuation, Handler, metadata_of
from services.rpc.client_authorizer import checked_handler

TOKEN_VARIABLE = "POMOGATOR_OPS_TOKEN"  # noqa: S105  It is where the token is.
"""Environment variable with the token, for the server and for its callers."""

TOKEN_CHARS_MIN = 32
UNAUTHENTICATED_METHODS = "/grpc.health.v1.Health/"
"""Methods that need no credential: health probes."""


def valid_token(token: str) -> str:
    """Return a valid token. Raise ValueError if it is too short or unfit for a header."""
    if len(token) < TOKEN_CHARS_MIN:
        raise ValueError(f"the operators' token must have at least {TOKEN_CHARS_MIN} characters")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the operators' token must be printable ASCII without spaces")
    return token


class OperatorCredential(grpc.aio.ServerInterceptor):
    """Interceptor that requires `authorization: Bearer <token>`.

    It runs behind `FailureBorder`, which turns the refusal into a status.
    """

    def __init__(self, token: str) -> None:
        """Create the interceptor. Raise ValueError for an invalid token."""
        self._token = valid_token(token)

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Return the method's handler, guarded by the check."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(UNAUTHENTICATED_METHODS):
            return handler
        return checked_handler(handler, self._check)

    def _check(self, context: Context) -> None:
        if not has_bearer_token(metadata_of(context).get("authorization"), self._token):
            message = "This method requires the operators' token."
            raise Failure(ErrorReason.INVALID_API_KEY, message)
