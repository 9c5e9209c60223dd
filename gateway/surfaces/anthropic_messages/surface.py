"""Surface of Anthropic's Messages: `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import ApiError
from gateway.http.credentials import AUTHORIZATION
from gateway.http.error_answer import ErrorAnswer
from gateway.surfaces.anthropic_messages import errors
from gateway.surfaces.anthropic_messages.messages_request import MessagesRequest
from gateway.surfaces.anthropic_messages.models_list import AnthropicModels
from gateway.surfaces.anthropic_messages.raw import VERSION_HEADER, decode_raw, decode_raw_prompt
from gateway.surfaces.anthropic_messages.render import PING
from gateway.surfaces.base import Framing, Route, Surface
from services.common.json_places import SKIMMED
from services.common.off_loop import OFF_LOOP_BYTES
from services.domain.prompt_count import PromptCountRequest


class AnthropicMessages(Surface):
    """Anthropic's Messages."""

    name = "messages"
    routes = (Route("POST", "/v1/messages"),)
    count_routes = (Route("POST", "/v1/messages/count_tokens"),)
    counts_prompt = True
    credential_headers = ("x-api-key", AUTHORIZATION)
    framing = Framing(keep_alive=PING)
    request_id_header = errors.REQUEST_ID_HEADER
    marker_header = VERSION_HEADER
    models_form = AnthropicModels()
    loop_bytes_max = OFF_LOOP_BYTES * SKIMMED

    def decode(
        self,
        body: bytes,
        headers: MultiMapping[str],
        config: EdgeConfig,  # noqa: ARG002
    ) -> MessagesRequest:
        """Read a request as far as the edge needs it: the service decodes the rest."""
        return decode_raw(body, headers)

    def decode_prompt(
        self,
        body: bytes,
        headers: MultiMapping[str],
        config: EdgeConfig,  # noqa: ARG002
    ) -> PromptCountRequest:
        """Read a request for the number of a prompt's tokens as far as the edge needs it."""
        return decode_raw_prompt(body, headers)

    def render_count(self, tokens: int) -> bytes:
        """Render the number of a prompt's tokens."""
        return b'{"input_tokens":%d}' % tokens

    def render_error(self, error: ApiError, request_id: str) -> ErrorAnswer:
        """Render a failure in Anthropic's form."""
        return errors.render_error(error, request_id)
