"""Operators' application: accounts, keys, the ledger and operations, on a listener of its own.

It is separate from the public application, so that none of its routes can be reached there. Without
the operators' token every request is refused alike, whether its route exists or not.
"""

from __future__ import annotations

import grpc
from aiohttp import web
from aiohttp.typedefs import Middleware
from pomogator.accounts.v1 import account_service_pb2 as accounts
from pomogator.accounts.v1 import audit_service_pb2 as audit
from pomogator.accounts.v1 import key_service_pb2 as keys
from pomogator.accounts.v1 import ledger_service_pb2 as ledger
from pomogator.calls.v1 import call_service_pb2 as calls
from pomogator.operations.v1 import operations_service_pb2 as operations

from gateway import openapi
from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.credentials import AUTHORIZATION
from gateway.http.middleware import REQUEST_ID, Handler, add_headers, border
from gateway.http.request_urls import URLS, UrlList, add_head_routes
from gateway.http.runner import CONFIG
from gateway.http.trusted_proxies import TrustedProxies
from gateway.telemetry.request_observer import OBSERVER, RequestObserver
from gateway.transcoding import routes
from services.common.call_names import OPERATOR_HEADER
from services.common.request_headers import has_bearer_token
from services.domain.error_reason import ErrorReason

SERVICES = (
    accounts.DESCRIPTOR.services_by_name["AccountService"],
    keys.DESCRIPTOR.services_by_name["KeyService"],
    audit.DESCRIPTOR.services_by_name["AuditService"],
    ledger.DESCRIPTOR.services_by_name["LedgerService"],
    operations.DESCRIPTOR.services_by_name["OperationsService"],
    calls.DESCRIPTOR.services_by_name["CallService"],
)


def create_operators_app(
    channel: grpc.aio.Channel, token: str, config: EdgeConfig
) -> web.Application:
    """Return the operators' services at `channel`, behind `Authorization: Bearer <token>`.

    `gateway.server` runs the application. The channel needs no credential of its own.
    """
    throttle = AuthThrottle(proxies=TrustedProxies(config.trusted_proxies))
    app = web.Application(middlewares=[border, throttle.middleware, _require_token(token)])
    app[OBSERVER] = RequestObserver()
    app[CONFIG] = config
    app.on_response_prepare.append(add_headers)
    app.add_routes(routes(SERVICES, channel, config, metadata_of=_operator_metadata))
    document = openapi.openapi(SERVICES, completions=False)
    app.router.add_get("/openapi.json", openapi.handler(document))
    add_head_routes(app.router)
    app[URLS] = UrlList.of(app.router)
    return app


def _require_token(token: str) -> Middleware:
    """Return the middleware that checks the token before anything else."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        values = request.headers.getall(AUTHORIZATION, ())
        if len(values) != 1 or not has_bearer_token(values[0], token):
            message = (
                "This method requires the operators' token, in the header `Authorization: Bearer`."
            )
            raise ApiError(ErrorReason.INVALID_API_KEY, message)
        return await handler(request)

    return guard


def _operator_metadata(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a call. The token is not part of it: the channel is trusted."""
    operator = request.headers.get(OPERATOR_HEADER, "")
    named = ((OPERATOR_HEADER, operator),) if operator.isascii() and operator.isprintable() else ()
    return (("x-request-id", request[REQUEST_ID]), *named)
