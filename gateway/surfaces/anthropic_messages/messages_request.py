"""Messages request: what to generate, and how its answer is rendered."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.surfaces.anthropic_messages.render import EventRenderer
from gateway.surfaces.anthropic_messages.render_whole import render_message
from services.domain.completion import Completion
from services.domain.spec import ChatCompletionSpec


class MessagesRequest(Struct, frozen=True, kw_only=True):
    """A request for a message."""

    spec: ChatCompletionSpec
    stream: bool = False

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render a whole answer."""
        return render_message(completion, self.spec.stop)

    def stream_renderer(self) -> EventRenderer:
        """Return the renderer of the stream."""
        return EventRenderer(self.spec.stop)
