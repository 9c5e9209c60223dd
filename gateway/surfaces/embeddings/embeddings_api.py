"""OpenAI's embeddings, as an inbound API."""

from __future__ import annotations

from gateway.errors import ApiError
from gateway.http.error_answer import ErrorAnswer, render_openai_error
from gateway.surfaces.base import InboundApi, Route


class EmbeddingsApi(InboundApi):
    """OpenAI's embeddings."""

    name = "embeddings"
    routes = (Route("POST", "/v1/embeddings"),)

    def render_error(self, error: ApiError, request_id: str) -> ErrorAnswer:
        """Render a failure as `{"error": {"message", "type", "param", "code"}}`."""
        return render_openai_error(error, request_id)
