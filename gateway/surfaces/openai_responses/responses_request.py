"""Responses request: a decoded request, and the options of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from msgspec import Struct

from gateway.surfaces.base import StreamRenderer
from gateway.surfaces.openai_responses.answer_form import answer_form
from gateway.surfaces.openai_responses.raw_failure import failed_response
from gateway.surfaces.openai_responses.render import EventRenderer
from gateway.surfaces.openai_responses.render_whole import render_response
from gateway.surfaces.openai_responses.response_object import AnswerForm
from gateway.surfaces.raw_rendering import RawStreamRenderer
from services.domain.completion import Completion
from services.domain.raw_request import RawRequest
from services.domain.spec import ChatCompletionSpec


class ResponsesRequest(Struct, frozen=True, kw_only=True):
    """A request for a response."""

    spec: ChatCompletionSpec
    """The request. With `raw` it has the model alone."""
    form: AnswerForm = AnswerForm()
    """The form of its answer. With `raw` that is read when it is needed."""
    raw: RawRequest | None = None
    """The request as it came."""
    texts: None = None
    stream: bool = False

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render a whole answer."""
        if completion.raw_body:
            return completion.raw_body
        raw, model = self.raw, self.spec.model
        form = self.form if raw is None else answer_form(raw.body, model)
        return render_response(completion, form)

    def stream_renderer(self) -> StreamRenderer:
        """Return the renderer of the stream."""
        if self.raw is None:
            return EventRenderer(self.form)
        translated = partial(_renderer, self.raw.body, self.spec.model)
        return RawStreamRenderer(translated, failed_response)


def _renderer(body: bytes, model: str) -> EventRenderer:
    return EventRenderer(answer_form(body, model))
