"""Chat request: a decoded request, and the options of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.surfaces.openai_chat.render import ChunkOptions
from gateway.surfaces.openai_chat.render_whole import render_completion
from services.common.chat_names import CONTENT_HEADER, TEXT_CONTENT, THINKING_SUFFIX
from services.domain.completion import Completion
from services.domain.spec import ChatCompletionSpec

# A client that asks for JSON parses the content, as `.parse()` of the SDKs does: it must be a
# string.
_JSON_FORMATS = frozenset({"json_object", "json_schema"})


class ChatRequest(ChunkOptions, frozen=True, kw_only=True):
    """A request for a chat completion: what to generate, and the options of its answer."""

    spec: ChatCompletionSpec
    raw: None = None
    texts: Sequence[str] | None = None
    """Texts of the messages of a simple request."""
    stream: bool = False
    text_only: bool = False
    """Whether the content must be a string, since typed code of the SDKs takes nothing else."""

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:
        """Render a whole answer. For a `-thinking` model its content is thinking and text.

        The answer's headers, too, may say that the content must be a string.
        """
        thinking = self.spec.model.endswith(THINKING_SUFFIX) and not (
            self.text_only or headers.get(CONTENT_HEADER) == TEXT_CONTENT or _asks_json(self.spec)
        )
        return render_completion(
            completion,
            thinking_parts=thinking,
            include_cost=self.include_cost,
            functions=self.functions,
            names_provider=self.names_provider,
        )


def _asks_json(spec: ChatCompletionSpec) -> bool:
    asked = spec.response_format
    return asked is not None and asked.type in _JSON_FORMATS
