"""Log probabilities of an answer, in the form of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from services.providers.openai import wire
from services.providers.openai.extras import Json, decoded

NO_LOGPROB = -9999.0
"""OpenAI's value for a token that is not among the most likely ones."""


def logprobs_of(found: wire.Logprobs, unknown: Any) -> Json:
    """Return the members of `logprobs`, with the lists of the older API in the newer form.

    Empty if there are none.
    """
    members: Json = {"content": found.content, "refusal": found.refusal}
    older = found.tokens or found.token_logprobs or found.top_logprobs
    if older and not found.content and (content := _content(found)) is not None:
        members["content"] = content
    elif older:
        older_lists = (found.tokens, found.token_logprobs, found.top_logprobs)
        names = ("tokens", "token_logprobs", "top_logprobs")
        members |= zip(names, older_lists, strict=True)
    members |= decoded(unknown)
    return members if any(members.values()) else {}


def joined(pieces: Sequence[Json]) -> bytes:
    """Return the JSON of all pieces together, as of their stream. Empty: there are none."""
    whole: dict[str, Any] = {}
    for piece in pieces:
        for name, value in piece.items():
            before = whole.setdefault(name, None)
            if isinstance(before, list) and isinstance(value, list):
                whole[name] = before + value
            elif value is not None:
                whole[name] = value
    return msgspec.json.encode(whole) if whole else b""


def _content(found: wire.Logprobs) -> list[object] | None:
    """Return the older API's lists as one list of tokens. None if they are not such lists."""
    tokens = found.tokens or ()
    if not tokens or not all(isinstance(token, str) for token in tokens):
        return None
    probabilities, tops = found.token_logprobs or (), found.top_logprobs or ()
    content: list[object] = []
    for number, token in enumerate(tokens):
        logprob = probabilities[number] if number < len(probabilities) else None
        top = tops[number] if number < len(tops) else None
        others = top.items() if isinstance(top, dict) else ()
        content.append(
            _token(str(token), logprob) | {"top_logprobs": [_token(*other) for other in others]}
        )
    return content


def _token(token: str, logprob: object) -> Json:
    value = logprob if isinstance(logprob, int | float) else NO_LOGPROB
    return {"token": token, "logprob": value, "bytes": list(token.encode())}
