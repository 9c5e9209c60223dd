"""REST for operators: accounts, keys and the ledger, on a listener of their own.

An application apart from the public one, so that no route of it can be reached there. Nothing
of it, not even what there is, is told without the operators' token.
"""

from __future__ import annotations

import grpc
from aiohttp import web
from aiohttp.typedefs import Middleware
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.chat.v1 import error_reason_pb2 as reasons
from pomogator.operations.v1 import operations_service_pb2 as operations

from gateway import openapi
from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.credentials import AUTHORIZATION
from gateway.http.middleware import REQUEST_ID, Handler, add_headers, border
from gateway.http.runner import CONFIG
from gateway.transcoding import routes
from services.common.request_headers import has_bearer_token

SERVICES = (
    accounts.DESCRIPTOR.services_by_name["AccountService"],
    keys.DESCRIPTOR.services_by_name["KeyService"],
    ledger.DESCRIPTOR.services_by_name["LedgerService"],
    operations.DESCRIPTOR.services_by_name["OperationsService"],
)


def create_operators_app(
    channel: grpc.aio.Channel, token: str, config: EdgeConfig
) -> web.Application:
    """The operators' services at `channel`, for who sends `Authorization: Bearer <token>`.

    `gateway.server` runs it. The channel asks for no credential of its own.
    """
    app = web.Application(middlewares=[border, AuthThrottle().middleware, _guarded_by(token)])
    app[CONFIG] = config
    app.on_response_prepare.append(add_headers)
    app.add_routes(routes(SERVICES, channel, config, metadata_of=_of_operator))
    document = openapi.openapi(SERVICES, completions=False)
    app.router.add_get("/openapi.json", openapi.handler(document))
    return app


def _guarded_by(token: str) -> Middleware:
    """The middleware that asks for the token before anything else is looked at."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        values = request.headers.getall(AUTHORIZATION, ())
        if len(values) != 1 or not has_bearer_token(values[0], token):
            message = "This needs the operators' token."
            raise ApiError(reasons.ERROR_REASON_INVALID_API_KEY, message)
        return await handler(request)

    return guard


def _of_operator(request: web.Request) -> tuple[tuple[str, str], ...]:
    """The token stays here: the service behind the channel takes our word for it."""
    return (("x-request-id", request[REQUEST_ID]),)
