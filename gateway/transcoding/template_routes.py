"""Routes of aiohttp for bindings.

aiohttp's own patterns differ from those of google.api.http: they have no verbs after a colon, and
match the decoded path, where `%2F` and `/` are the same. So each binding is a resource of its own
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

import grpc
from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from google.protobuf.descriptor import ServiceDescriptor
from yarl import URL

from gateway.config import EdgeConfig
from gateway.http.call_options import idempotency_key, trace_context
from gateway.http.credentials import api_key
from gateway.http.middleware import REQUEST_ID
from gateway.rpc.call_metadata import call_metadata
from gateway.transcoding.bindings import Binding, bindings
from gateway.transcoding.transcoder import CallMetadata, Transcoder


def caller_metadata(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller's request. ApiError refuses one without a key of ours."""
    headers = request.headers
    return call_metadata(
        api_key(headers), request[REQUEST_ID], idempotency_key(headers), trace_context(headers)
    )


def routes(
    services: Iterable[ServiceDescriptor],
    channel: grpc.aio.Channel,
    config: EdgeConfig,
    *,
    metadata_of: CallMetadata = caller_metadata,
) -> list[web.AbstractRouteDef]:
    """Return the routes of every annotated method of the services, for `app.add_routes`.

    The application needs `gateway.http.middleware.border`, which turns errors into answers.
    `metadata_of` makes the metadata of each call, before the body is read. Raises ValueError: an
    annotation is wrong. The message names its method.
    """
    return [
        TemplateRoute(binding, Transcoder(binding, channel, config, metadata_of).handle)
        for binding in bindings(services)
    ]


class TemplateRoute(web.AbstractRouteDef):
    """The definition of the route of one binding."""

    def __init__(self, binding: Binding, handler: Callable[..., Any]) -> None:
        self.binding = binding
        self._handler = handler

    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        """Add the route after those that the router has."""
        resource = TemplateResource(self.binding, self._handler)
        router.register_resource(resource)
        return list(resource)


class TemplateResource(web.AbstractResource):
    """A path template with one verb."""

    def __init__(self, binding: Binding, handler: Callable[..., Any]) -> None:
        super().__init__()
        self._binding = binding
        self._route = web.ResourceRoute(binding.verb, handler, self, expect_handler=_send_nothing)
        # aiohttp sends the answer to HEAD without its body.
        self._verbs = {"GET", "HEAD"} if binding.verb == "GET" else {binding.verb}

    @property
    def canonical(self) -> str:
        """A pattern for any path: so aiohttp tries its own routes first, then ours in order."""
        return "/{path}"

    @property
    def http_route(self) -> str:
        """The path as it is annotated, for metrics and traces."""
        return self._binding.template.source

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo | None, set[str]]:
        """Return the variables, still encoded, and the verbs that the path takes."""
        found = self._binding.template.match(request.rel_url.raw_path)
        if found is None:
            return None, set()
        if request.method not in self._verbs:
            return None, self._verbs
        return UrlMappingMatchInfo(dict(found), self._route), self._verbs

    def raw_match(self, path: str) -> bool:
        """Whether `path` is the template's own text."""
        return path == self._binding.template.source

    def get_info(self) -> Any:
        """The description of the resource for aiohttp's lists."""
        return {"formatter": self._binding.template.source}

    def add_prefix(self, prefix: str) -> NoReturn:
        """Not supported: the contract has the path."""
        raise NotImplementedError(prefix)

    def freeze(self) -> None:
        """Do nothing: the resource does not change."""

    def url_for(self, **_: str) -> URL:
        """Not supported: no code of ours makes URLs."""
        raise NotImplementedError(self._binding.template.source)

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[web.AbstractRoute]:
        return iter((self._route,))


async def _send_nothing(_: web.Request) -> None:
    """Leave the answer to `Expect: 100-continue` to the reader of the body."""
