"""Error answers: a failure as status, JSON body and headers, in the form of the request's path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from aiohttp import web

from gateway.errors import ApiError


class ErrorAnswer(NamedTuple):
    """The answer to a request that failed before anything was sent."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    """Without the content type, which is JSON's."""


ErrorRenderer: TypeAlias = Callable[[ApiError, str], ErrorAnswer]
"""Renders an error of the request with this id."""

ERROR_RENDERERS: Final = web.AppKey("error_renderers", dict[str, ErrorRenderer])
"""By path, for paths whose form of errors is not OpenAI's."""

MARKED_ERROR_RENDERERS: Final = web.AppKey("marked_error_renderers", dict[str, ErrorRenderer])
"""By a header that only clients of one API send, for all other paths."""


def render_openai_error(error: ApiError, request_id: str) -> ErrorAnswer:  # noqa: ARG001
    """Render an error in OpenAI's form, which serves every path without a form of its own."""
    return ErrorAnswer(error.status, error.body(), error.headers())


def error_renderer(request: web.Request) -> ErrorRenderer:
    """Return the form of errors at the request's path, whatever the method, or of its client."""
    app = request.app
    renderer = app.get(ERROR_RENDERERS, {}).get(request.path)
    if renderer is not None:
        return renderer
    marked = app.get(MARKED_ERROR_RENDERERS, {})
    return next((marked[name] for name in marked if name in request.headers), render_openai_error)
