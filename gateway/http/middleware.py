"""Error border of the requests that aiohttp routes.

Every request gets an id and an access line, every answer its headers, every failure a JSON body.
Of exceptions only an `ApiError` shows its text to clients.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from multidict import MultiMapping

from gateway.errors import ApiError, internal
from gateway.http.error_answer import error_renderer
from gateway.http.reply import FIXED_HEADERS, elapsed_ms
from gateway.http.request_urls import URLS
from gateway.telemetry.request_observer import (
    CLIENT_CLOSED,
    OBSERVER,
    ObservedRequest,
    RequestTarget,
    cut_off,
    route_of,
)
from services.common.request_headers import request_id_or_new
from services.domain.error_reason import ErrorReason

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = web.RequestKey("request_id", str)
STARTED: Final = web.RequestKey("started", float)
OUTCOME: Final = web.RequestKey("outcome", dict[str, object])
"""Fields of the access log beside the status."""
BEGUN: Final = web.RequestKey("begun", float)
"""When an answer that a `Reply` sends began, by `time.perf_counter`."""
CUT_OFF: Final = web.RequestKey("cut_off", bool)
"""Whether a shutdown cuts the request off."""

_log = logging.getLogger("gateway")


def request_id(headers: MultiMapping[str]) -> str:
    """Return the client's id of its request if it is fit for logs, else a new one."""
    return request_id_or_new(headers.get("X-Request-Id"))


@web.middleware
async def border(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run the handler, answer its failures, and write the access line."""
    request[REQUEST_ID] = own_id = request_id(request.headers)
    request[STARTED] = started = time.perf_counter()
    outcome: dict[str, object] = {}
    request[OUTCOME] = outcome
    # Bytes that are not UTF-8 arrive as lone surrogates, which JSON cannot hold.
    path = request.rel_url.raw_path[:256].encode("ascii", "backslashreplace").decode()
    observer = request.app[OBSERVER]
    target = RequestTarget(method=request.method, route=route_of(request), path=path)
    observed = ObservedRequest(own_id, target, started, outcome)
    observer.begin(observed, request.headers)
    status = CLIENT_CLOSED
    try:
        response = await _answer(request, handler)
        status = response.status
        return response
    finally:
        begun_at = request.get(BEGUN, 0.0)
        if status == CLIENT_CLOSED and request.get(CUT_OFF, False):
            status = cut_off(outcome, begun_at)
        observer.end(observed, status, begun_at)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return error_response(request, error)
    except web.HTTPException as error:
        return error_response(request, _from_http(request, error))
    except ConnectionError:
        raise  # The client is gone: aiohttp closes the connection.
    except Exception:  # noqa: BLE001 - a border: clients get an internal error
        _log.exception("request.failed", extra={"request_id": request[REQUEST_ID]})
        return error_response(request, internal(request[REQUEST_ID]))


def error_response(request: web.Request, error: ApiError) -> web.Response:
    """Return the answer to a request that failed before anything was sent."""
    request[OUTCOME]["code"] = error.code
    status, body, headers = error_renderer(request)(error, request[REQUEST_ID])
    response = web.Response(
        status=status, body=body, headers=headers, content_type="application/json"
    )
    if error.row.closes:
        response.force_close()
    return response


def _from_http(request: web.Request, error: web.HTTPException) -> ApiError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        methods = ", ".join(sorted(error.allowed_methods))
        return ApiError(
            ErrorReason.METHOD_NOT_ALLOWED,
            f"This URL does not take that method, but {methods}.",
            headers={"Allow": error.headers["Allow"]},
        )
    if isinstance(error, web.HTTPExpectationFailed):
        message = "The only expectation that can be met is `100-continue`."
        return ApiError(ErrorReason.EXPECTATION_FAILED, message)
    if error.status == 404:
        urls = request.app.get(URLS)
        message = urls.not_found(request.path) if urls else "There is nothing at this URL."
        return ApiError(ErrorReason.UNKNOWN_URL, message)
    return internal(request[REQUEST_ID])


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of every answer, before they are sent."""
    headers = response.headers
    headers["x-request-id"] = request[REQUEST_ID]
    headers["openai-processing-ms"] = str(elapsed_ms(request[STARTED]))
    headers.update(
        {
            **FIXED_HEADERS,
            "Cache-Control": headers.get("Cache-Control", FIXED_HEADERS["Cache-Control"]),
        }
    )
