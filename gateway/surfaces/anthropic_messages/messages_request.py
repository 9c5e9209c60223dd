"""Messages request: a decoded request, and the options of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from msgspec import Struct

from gateway.surfaces.anthropic_messages.render import EventRenderer, failed_message
from gateway.surfaces.anthropic_messages.render_whole import render_message
from gateway.surfaces.raw_rendering import RawStreamRenderer
from services.domain.completion import Completion
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec


class MessagesRequest(Struct, frozen=True, kw_only=True):
    """A request for a message."""

    spec: ChatCompletionSpec
    """The request. With `raw` it has the model alone."""
    raw: RawRequest | None = None
    """The request as it came."""
    texts: None = None
    stream: bool = False
    stops: Sequence[str] = ()
    """The stop sequences."""

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render a whole answer."""
        return completion.raw_body or render_message(completion, self.stops)

    def stream_renderer(self) -> RawStreamRenderer:
        """Return the renderer of the stream."""
        return RawStreamRenderer(partial(EventRenderer, self.stops), failed_message)
