"""Surface of OpenAI's older completions: `POST /v1/completions`."""

from __future__ import annotations

from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.surfaces.base import Framing, Route, Surface
from gateway.surfaces.openai_completions.decode import decode
from gateway.surfaces.openai_completions.text_request import TextRequest


class OpenAICompletions(Surface):
    """OpenAI's older completions."""

    name = "completions"
    routes = (Route("POST", "/v1/completions"),)
    framing = Framing(end=b"data: [DONE]\n\n")

    def decode(
        self,
        body: bytes,
        headers: MultiMapping[str],  # noqa: ARG002 - none of this API
        config: EdgeConfig,  # noqa: ARG002 - there are no images
    ) -> TextRequest:
        """Decode a request."""
        return decode(body)
