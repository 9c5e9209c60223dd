"""URLs of an application: trailing slashes, HEAD wherever GET is, and a 404 that names what exists.

Clients are configured with base URLs of every form. Load balancers probe with HEAD.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Final

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage

_PATH_MAX = 64
"""Characters of a path that is compared with those that exist."""
_LIKENESS_MIN = 0.8
"""From 0 to 1. `/v1/images/generations` is as like `/v1/generation` as 0.78."""
_ADMINISTRATION = ("/v1/account/", "/v1/calls")
_LISTED_MAX = 20
"""URLs that a 404 lists. Of more, `/openapi.json` has the list."""


def without_slash(message: RawRequestMessage) -> RawRequestMessage:
    """Return the request without the slash at the end of its path: `/v1/models/`.

    It is no redirect, since most clients do not send a body again.
    """
    path = message.url.raw_path
    if len(path) < 2 or not path.endswith("/"):
        return message
    url = message.url.with_path(path[:-1], encoded=True, keep_query=True)
    return message._replace(path=str(url), url=url)


def add_head_routes(router: web.UrlDispatcher) -> None:
    """Add HEAD to each resource of `router` that takes GET and has no HEAD yet.

    aiohttp sends the answer to GET without its body.
    """
    for resource in list(router.resources()):
        by_method = {route.method: route for route in resource}
        get = by_method.get("GET")
        if get is not None and "HEAD" not in by_method and isinstance(resource, web.Resource):
            resource.add_route("HEAD", get.handler, expect_handler=get.handle_expect_header)


class UrlList:
    """The methods and paths of an application, for the message of a 404."""

    def __init__(self, urls: Iterable[tuple[str, str]]) -> None:
        self._urls: Sequence[tuple[str, str]] = sorted(set(urls), key=lambda url: (url[1], url[0]))

    @classmethod
    def of(cls, router: web.UrlDispatcher) -> UrlList:
        """Return the list of all routes that `router` has so far, without those for HEAD."""
        return cls(
            (route.method, getattr(route.resource, "http_route", route.resource.canonical))
            for route in router.routes()
            if route.resource is not None and route.method != "HEAD"
        )

    def _listed(self) -> Sequence[tuple[str, str]]:
        """Return the URLs that clients of models may mean: not those for keys and the call log."""
        return [url for url in self._urls if not url[1].startswith(_ADMINISTRATION)]

    def not_found(self, path: str) -> str:
        """Return the message of a 404 for `path`, which it does not quote."""
        paths = {known for _, known in self._urls}
        above = any(known.startswith(f"{path.rstrip('/')}/") for known in paths)
        near = len(path) <= _PATH_MAX and not above  # All that is below /v1 is as near to it.
        close = difflib.get_close_matches(path, paths, n=1, cutoff=_LIKENESS_MIN) if near else ()
        parts = ["There is nothing at this URL."]
        if close:
            parts.append(f"Did you mean {' and '.join(self._methods(close[0]))}?")
        elif len(listed := self._listed()) <= _LISTED_MAX:
            parts.append(f"There is {', '.join(f'{verb} {known}' for verb, known in listed)}.")
        else:
            parts.append("/openapi.json lists what there is.")
        return " ".join(parts)

    def _methods(self, path: str) -> Sequence[str]:
        return [f"{method} {known}" for method, known in self._urls if known == path]


URLS: Final = web.AppKey("urls", UrlList)
"""The URLs of an application, if its 404s name them."""
