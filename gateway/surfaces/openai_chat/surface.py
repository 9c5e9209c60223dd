"""Surface of OpenAI's chat completions: `POST /v1/chat/completions`."""

from __future__ import annotations

from msgspec.structs import replace
from multidict import MultiMapping

from gateway.config import EdgeConfig
from gateway.errors import invalid
from gateway.surfaces.base import Framing, Route, Surface
from gateway.surfaces.openai_chat.chat_request import ChatRequest, read_simple
from gateway.surfaces.openai_chat.decode import decode, decode_large
from gateway.surfaces.openai_chat.image_extraction import EXTRACTED_BYTES_MIN
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT


class OpenAIChat(Surface):
    """OpenAI's chat completions."""

    name = "chat"
    routes = (Route("POST", "/v1/chat/completions"),)
    framing = Framing(end=b"data: [DONE]\n\n")

    def check_headers(self, headers: MultiMapping[str]) -> None:
        """Refuse `x-pomogator-content` with another value than `text`."""
        if headers.get(CONTENT_HEADER) not in {None, TEXT_CONTENT}:
            raise invalid(CONTENT_HEADER, f"{CONTENT_HEADER} must be `{TEXT_CONTENT}`.")

    def decode(self, body: bytes, headers: MultiMapping[str], config: EdgeConfig) -> ChatRequest:
        """Decode a request. `x-pomogator-content: text` asks for a content that is a string."""
        request = read_simple(body) if len(body) <= EXTRACTED_BYTES_MIN else None
        if request is None:
            request = decode(body, config)
        return replace(request, text_only=True) if CONTENT_HEADER in headers else request

    async def decode_large(
        self, body: bytes, headers: MultiMapping[str], config: EdgeConfig
    ) -> ChatRequest:
        """Decode a large request, whose images are left out first."""
        request = await decode_large(body, config)
        return replace(request, text_only=True) if CONTENT_HEADER in headers else request
