"""Reasoning in an answer, under the providers' various field names, and in OpenRouter's form.

The text is in `reasoning_content`, in `reasoning`, in `reasoning_details`, or in several of them at
once; in that case it is the same text and is returned once. The details also hold signatures and
sealed reasoning, which the next turn needs unchanged.
"""

from __future__ import annotations

import msgspec

from services.common.reasoning_fragments import Detail, gather
from services.providers.openai import wire
from services.providers.translate.reasoning_details import encode, gemini_seal, plain, text_of


class Reasoning(msgspec.Struct, eq=False):
    """Reasoning of one choice."""

    _is_shown: bool
    """Whether the answer has it in OpenRouter's form, too."""
    _shown: list[Detail] = []
    """Its pieces in that form."""
    details: list[Detail] = []
    """The provider's `reasoning_details`, assembled from its fragments."""
    _plain: bool = False

    def add(self, message: wire.Message) -> str:
        """Add `message`. Returns the text that it adds."""
        text = message.reasoning_content or message.reasoning or ""
        self._plain = self._plain or bool(text)
        if not message.reasoning_details:
            return text
        said = "".join(map(text_of, message.reasoning_details))
        for detail in message.reasoning_details:
            gather(detail, self.details)
        return text if self._plain else said

    def shown(self, text: str, details: list[Detail] | None = None) -> bytes:
        """Return a piece in OpenRouter's form: the provider's own `details`, else its text.

        Empty where the answer does not have that form.
        """
        if not self._is_shown:
            return b""
        fragments = details or ([plain(text)] if text else [])
        for fragment in fragments:
            gather(fragment, self._shown)
        return encode(fragments)

    def seal(self, extra_content_json: bytes, place: int, call_id: str) -> bytes:
        """Return Gemini's signature of a tool call in OpenRouter's form.

        Empty: the call has no signature, the answer does not have that form, or the provider's own
        details contain it.
        """
        if not self._is_shown or self.details:
            return b""
        seal = gemini_seal(extra_content_json, place, call_id)
        return self.shown("", [seal] if seal else None)

    @property
    def all_shown(self) -> bytes:
        """All pieces so far in OpenRouter's form."""
        return encode(self._shown)
