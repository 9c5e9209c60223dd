"""OpenRouter's API: OpenAI's, with reasoning that has to come back as it was given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.stand.providers import openai
from tests.stand.providers.answers import Answer, Part, Redacted, Refused, Text, Thought
from tests.stand.providers.openai import OpenAi
from tests.stand.upstream import event

Json = dict[str, Any]


class OpenRouter(OpenAi):
    """Speaks OpenRouter's dialect."""

    keys = (openai.KEYS - {"thinking", "reasoning_effort"}) | {"reasoning", "usage", "top_a"}
    message_keys = openai.MESSAGE_KEYS | {"reasoning_details"}

    def message(self, answer: Answer) -> Json:
        """The message of a whole answer, which later requests send back."""
        found = super().message(answer)
        if details := _details(answer):
            found["reasoning"] = found.pop("reasoning_content", None)
            found["reasoning_details"] = details
        return found

    def pieces(self, part: Part, place: int) -> Iterator[Json]:
        """The deltas of a part of the answer that is no call."""
        if isinstance(part, Text):
            yield from super().pieces(part, place)
        elif isinstance(part, Redacted):
            yield {"reasoning_details": [_sealed(part, place)]}
        elif isinstance(part, Thought):
            detail = _plain(part, place)
            rest = {key: detail[key] for key in ("type", "format", "index")}
            for piece in part.pieces:
                yield {"reasoning": piece, "reasoning_details": [rest | {"text": piece}]}
            yield {"reasoning_details": [rest | {"signature": part.signature}]}

    def usage(self, answer: Answer) -> Json:
        """The tokens, and what they cost there."""
        return super().usage(answer) | {"cost": 0.000123, "is_byok": False}

    def refusal(self, refused: Refused) -> Json:
        """The body of an answer with another status."""
        error = {"message": refused.message, "code": refused.status}
        return {"error": error | {"metadata": {"error_type": refused.kind}}}

    def altered(self, sent: Json, answer: Answer, body: Json) -> str:
        """Return the difference of a turn from the `answer` that it was; empty: none.

        Its reasoning may only be missing where the model is not going to reason.
        """
        came = sent.get("reasoning_details", [])
        if came != _details(answer) and (came or "reasoning" in body):
            return "The reasoning_details have been altered."
        return super().altered(sent, answer, body)

    def ending(self, chunk: Json, answer: Answer, body: Json) -> Iterator[bytes]:  # noqa: ARG002
        """The last chunk, which has the usage and repeats the choice, asked for or not."""
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": answer.stop}
        yield event(chunk | {"choices": [choice], "usage": self.usage(answer)})


def _details(answer: Answer) -> list[Json]:
    return [
        _plain(part, place) if isinstance(part, Thought) else _sealed(part, place)
        for place, part in enumerate(answer.parts)
        if isinstance(part, Thought | Redacted)
    ]


def _plain(part: Thought, place: int) -> Json:
    said = {"type": "reasoning.text", "format": "anthropic-claude-v1", "index": place}
    return said | {"text": part.text, "signature": part.signature}


def _sealed(part: Redacted, place: int) -> Json:
    said = {"type": "reasoning.encrypted", "format": "anthropic-claude-v1", "index": place}
    return said | {"data": part.data}
