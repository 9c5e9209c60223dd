"""Responses request: what to generate, and how its answer is rendered."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.surfaces.openai_responses.render import EventRenderer
from gateway.surfaces.openai_responses.render_whole import render_response
from gateway.surfaces.openai_responses.response_object import AnswerForm
from services.domain.completion import Completion
from services.domain.spec import ChatCompletionSpec


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """A request for a response."""

    spec: ChatCompletionSpec
    form: AnswerForm
    raw: None = None
    stream: bool = False

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render a whole answer."""
        return render_response(completion, self.form)

    def stream_renderer(self) -> EventRenderer:
        """Return the renderer of the stream."""
        return EventRenderer(self.form)
