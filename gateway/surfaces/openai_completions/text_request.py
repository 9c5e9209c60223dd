"""Text request: a decoded request, and the options of its answer."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from gateway.surfaces.openai_completions.render import TextRenderer, render_text
from services.domain.completion import Completion
from services.domain.spec import ChatCompletionSpec


class TextRequest(Struct, frozen=True, kw_only=True):
    """A request to continue a text, and the options of its answer."""

    spec: ChatCompletionSpec
    raw: None = None
    texts: None = None
    stream: bool = False
    include_usage: bool = False
    """Whether the stream ends with the usage."""
    prompt_chars: int = 0
    """Characters of the prompt before the answer: where the offsets of its tokens begin."""

    def render(self, completion: Completion, headers: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Render a whole answer."""
        return render_text(completion, offset=self.prompt_chars)

    def stream_renderer(self) -> TextRenderer:
        """Return the renderer of the stream."""
        return TextRenderer(include_usage=self.include_usage, offset=self.prompt_chars)
