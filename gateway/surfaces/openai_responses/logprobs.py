"""Log probabilities of an answer's tokens, in the form of this API."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class _Token(Struct):
    token: str = ""
    bytes: list[int] | None = None
    logprob: float = 0.0


class _Position(_Token):
    top_logprobs: list[_Token] | None = None


class _Logprobs(Struct):
    content: list[_Position] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs)


def text_logprobs(logprobs_json: bytes) -> list[dict[str, object]]:
    """Return those of a text. Bytes that the provider leaves out are those of the token."""
    positions = _LOGPROBS.decode(logprobs_json).content or []
    return [
        {**_members(each), "top_logprobs": [_members(other) for other in each.top_logprobs or ()]}
        for each in positions
    ]


def _members(token: _Token) -> dict[str, object]:
    own = list(token.token.encode()) if token.bytes is None else token.bytes
    return {"token": token.token, "bytes": own, "logprob": token.logprob}
