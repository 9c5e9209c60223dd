"""Validation of a text completion, whose only message has the prompt and what comes after it."""

from __future__ import annotations

from services.domain.conversation import TextPart
from services.domain.spec import ChatCompletionSpec
from services.errors import invalid

TEXTS_MAX = 2
"""Most texts of a text completion: the prompt, and what comes after the answer."""


def check_text_completion(spec: ChatCompletionSpec) -> None:
    """Raise Failure INVALID_FIELD if a request to continue a text has more than that."""
    for name in ("tools", "tool_choice", "response_format", "thinking", "reasoning_effort"):
        if getattr(spec, name):
            raise invalid(name, f"A text completion has no `{name}`.")
    parts = spec.messages[0].content
    is_prompt = len(spec.messages) == 1 and spec.messages[0].role == "user"
    if not is_prompt or len(parts) > TEXTS_MAX or not all(type(one) is TextPart for one in parts):
        raise invalid("messages", "A text completion has one message: the prompt, and a suffix.")
