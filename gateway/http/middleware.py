"""The border of what aiohttp routes.

Every request gets an id, every answer its headers, every failure a JSON body.

Nothing of an exception's text reaches a client but that of an `ApiError`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from aiohttp import web
from multidict import MultiMapping
from pomogator.chat.v1 import error_reason_pb2 as reasons

from gateway.errors import ApiError, internal
from gateway.http.reply import FIXED, elapsed_ms
from gateway.telemetry.access_log import WATCH, route_of
from services.common.json_logs import emit
from services.common.request_headers import request_id_or_new

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = web.RequestKey("request_id", str)
STARTED: Final = web.RequestKey("started", float)
OUTCOME: Final = web.RequestKey("outcome", dict[str, object])
"""What the access log says beside the status."""
BEGUN: Final = web.RequestKey("begun", float)
"""When a completion's answer began."""

# For the log only, since nobody is there to receive it. The number is nginx's.
CLIENT_CLOSED = 499

_access = logging.getLogger("gateway.access")
_log = logging.getLogger("gateway")


def request_id(headers: MultiMapping[str]) -> str:
    """The client's id of its request, if it is fit for logs, or a new one."""
    return request_id_or_new(headers.get("X-Request-Id"))


@web.middleware
async def border(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Runs the handler; answers for its failures; writes one line about it."""
    request[REQUEST_ID] = request_id(request.headers)
    request[STARTED] = time.perf_counter()
    outcome: dict[str, object] = {}
    request[OUTCOME] = outcome
    # Bytes that are no UTF-8 arrive as lone surrogates, which no JSON can hold.
    path = request.rel_url.raw_path[:256].encode("ascii", "backslashreplace").decode()
    line = AccessLine(request[REQUEST_ID], request.method, path, request[STARTED])
    watch = request.app.get(WATCH)
    watched = watch and watch.begin(line.method, route_of(request), path, request.headers, outcome)
    status = CLIENT_CLOSED
    try:
        response = await _answer(request, handler)
        status = response.status
        return response
    finally:
        write_line(line, outcome, status)
        if watch and watched:
            watch.end(watched, line.request_id, status, line.started, request.get(BEGUN, 0.0))


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(request, error)
    except web.HTTPException as error:
        return error_response(request, _from_http(request, error))
    except ConnectionError:
        raise  # The client is gone: aiohttp closes what is left.
    except Exception:  # noqa: BLE001 - the border: whatever it is, it is ours, and not for clients
        _log.exception("request.failed", extra={"request_id": request[REQUEST_ID]})
        return error_response(request, internal(request[REQUEST_ID]))


def error_response(request: web.Request, error: ApiError) -> web.Response:
    """The answer to a request that failed before anything was sent."""
    request[OUTCOME]["code"] = error.code
    response = web.Response(
        status=error.status,
        body=error.body(),
        headers=error.headers(),
        content_type="application/json",
    )
    if error.row.closes:
        response.force_close()
    return response


def _from_http(request: web.Request, error: web.HTTPException) -> ApiError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return ApiError(
            reasons.ERROR_REASON_METHOD_NOT_ALLOWED,
            "This URL does not take that method.",
            headers={"Allow": error.headers["Allow"]},
        )
    if isinstance(error, web.HTTPExpectationFailed):
        message = "The only expectation that can be met is `100-continue`."
        return ApiError(reasons.ERROR_REASON_EXPECTATION_FAILED, message)
    if error.status == 404:
        return ApiError(reasons.ERROR_REASON_UNKNOWN_URL, "There is nothing at this URL.")
    return internal(request[REQUEST_ID])


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer bears. Runs before its headers are sent."""
    headers = response.headers
    headers["x-request-id"] = request[REQUEST_ID]
    headers["openai-processing-ms"] = str(elapsed_ms(request[STARTED]))
    headers.update({**FIXED, "Cache-Control": headers.get("Cache-Control", FIXED["Cache-Control"])})


class AccessLine(NamedTuple):
    """What the access log says of any request."""

    request_id: str
    method: str
    path: str
    started: float
    """By `time.perf_counter`."""


def write_line(line: AccessLine, outcome: Mapping[str, object], status: int) -> None:
    """Writes a request's line into the access log."""
    if not _access.isEnabledFor(logging.INFO):
        return
    fields = {
        "request_id": line.request_id,
        "method": line.method,
        "path": line.path,
        **outcome,
        "status": status,
        "duration_ms": elapsed_ms(line.started),
    }
    emit(_access, "http.request", fields)
