"""Surface of OpenAI's Responses: `POST /v1/responses` and `/v1/responses/input_tokens`."""

from __future__ import annotations

from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.error_answer import ErrorAnswer
from gateway.surfaces.base import Route, Surface
from gateway.surfaces.openai_responses import errors
from gateway.surfaces.openai_responses.decode import decode_count
from gateway.surfaces.openai_responses.raw import decode_raw
from gateway.surfaces.openai_responses.responses_request import ResponsesRequest
from services.common.json_places import SKIMMED
from services.common.off_loop import OFF_LOOP_BYTES
from services.domain.prompt_count import PromptCountRequest

EVENTS = "text/event-stream"


class OpenAIResponses(Surface):
    """OpenAI's Responses."""

    name = "responses"
    routes = (Route("POST", "/v1/responses"),)
    count_routes = (Route("POST", "/v1/responses/input_tokens"),)
    field_names = errors.NAMES
    loop_bytes_max = OFF_LOOP_BYTES * SKIMMED

    def decode(
        self,
        body: bytes,
        headers: MultiMapping[str],  # noqa: ARG002
        config: EdgeConfig,  # noqa: ARG002
    ) -> ResponsesRequest:
        """Read a request as far as the edge needs it: the service decodes the rest."""
        return decode_raw(body)

    def decode_prompt(
        self,
        body: bytes,
        headers: MultiMapping[str],  # noqa: ARG002
        config: EdgeConfig,
    ) -> PromptCountRequest:
        """Decode a request for the number of a prompt's tokens."""
        return PromptCountRequest(spec=decode_count(body, config))

    def render_count(self, tokens: int) -> bytes:
        """Render the number of a prompt's tokens."""
        return b'{"object":"response.input_tokens","input_tokens":%d}' % tokens

    def begins_failed(self, headers: MultiMapping[str], error: ApiError) -> bool:
        """Return whether a client that accepts events alone gets a final failure as an event.

        Codex 0.171 does: it repeats requests after every status but 400, thirty times after 5xx,
        and stops at a failed response.
        """
        return error.row.final and headers.get("accept", "").strip().lower() == EVENTS

    def render_error(self, error: ApiError, request_id: str) -> ErrorAnswer:  # noqa: ARG002
        """Render a failure in OpenAI's form."""
        return errors.render_error(error)
