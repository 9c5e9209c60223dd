"""Cross-origin requests (CORS) of web pages, from origins that the operator allows.

https://fetch.spec.whatwg.org/#http-cors-protocol. Keys come in headers, never in cookies, so no
answer allows credentials. Pages of other origins get the same answers, which browsers hide from
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import web

from gateway.http.middleware import Handler
from gateway.http.reply import lines

ANY = "*"
MAX_AGE_S = 7200
"""How long browsers may keep the answer to a preflight request: the most that Chromium does."""

_FIELD_NAMES = re.compile(r"[\w!#$%&'*+.^`|~, -]{1,2000}", re.ASCII)


class CorsPolicy:
    """The origins whose pages may read answers."""

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._any = ANY in origins
        self._origins = frozenset(origins)

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """Return the headers of an answer to a request from `origin`; None: it has none."""
        vary = {} if self._any else {"Vary": "Origin"}
        if not self.allows(origin):
            return vary
        return {
            "Access-Control-Allow-Origin": ANY if self._any else str(origin),
            "Access-Control-Expose-Headers": ANY,
            **vary,
        }

    def fields(self, origin: str | None) -> str:
        """Return these headers as lines, for a `Reply`."""
        return lines(self.headers(origin))

    def allows(self, origin: str | None) -> bool:
        """Whether pages of `origin` may read answers."""
        if origin is None:
            return False
        return self._any or origin in self._origins

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer preflight requests for URLs that exist, before any key is asked for."""
        asked = request.headers
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in asked
        error = request.match_info.http_exception
        if not (
            is_preflight
            and self.allows(asked.get("Origin"))
            and isinstance(error, web.HTTPMethodNotAllowed)
        ):
            return await handler(request)
        answer = {
            "Access-Control-Allow-Methods": ", ".join(sorted(error.allowed_methods)),
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
        names = asked.get("Access-Control-Request-Headers", "")
        if _FIELD_NAMES.fullmatch(names):
            answer["Access-Control-Allow-Headers"] = names
        return web.Response(status=204, headers=answer)


CORS: Final = web.AppKey("cors", CorsPolicy)
"""The policy of an application, if it allows any origin."""


async def add_cors_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers for the request's origin, before they are sent."""
    response.headers.update(request.app[CORS].headers(request.headers.get("Origin")))
