"""Surface of OpenAI's chat completions: `POST /v1/chat/completions`."""

from __future__ import annotations

from multidict import MultiMapping

from gateway.errors import invalid
from gateway.surfaces.base import Framing, Route, Surface
from gateway.surfaces.openai_chat.decode import decode, decode_large
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT


class OpenAIChat(Surface):
    """OpenAI's chat completions."""

    name = "chat"
    routes = (Route("POST", "/v1/chat/completions"),)
    framing = Framing(end=b"data: [DONE]\n\n")
    decode = staticmethod(decode)
    decode_large = staticmethod(decode_large)

    def check_headers(self, headers: MultiMapping[str]) -> None:
        """Refuse `x-pomogator-content` with another value than `text`."""
        if headers.get(CONTENT_HEADER) not in {None, TEXT_CONTENT}:
            raise invalid(CONTENT_HEADER, f"{CONTENT_HEADER} must be `{TEXT_CONTENT}`.")
