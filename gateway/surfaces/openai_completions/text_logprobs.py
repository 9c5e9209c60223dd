"""Log probabilities in the form of text completions: a list of each property of the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

NO_LOGPROB = -9999.0
"""Value in the newer form for a token without a probability, such as the first one of an echo."""

_Json = dict[str, Any]


def to_lists(logprobs_json: bytes, offset: int) -> tuple[object, int]:
    """Return the log probabilities of some tokens, and where the next token begins.

    `logprobs_json` has the form of chat completions. `offset` is where the first token begins, in
    characters from the beginning of the prompt. Lists of a provider that could not be translated
    stay as they are.
    """
    members = msgspec.json.decode(logprobs_json, type=_Json) if logprobs_json else {}
    content = members.get("content")
    if not isinstance(content, list):
        return (members or None), offset
    tokens = [token for token in content if isinstance(token, Mapping)]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(str(token.get("token", "")))
    lists = {
        "tokens": [token.get("token") for token in tokens],
        "token_logprobs": [_logprob(token) for token in tokens],
        "top_logprobs": [_alternatives(token) for token in tokens],
        "text_offset": offsets,
    }
    return lists, offset


def _logprob(token: Mapping[str, Any]) -> object:
    value = token.get("logprob")
    return None if value == NO_LOGPROB else value


def _alternatives(token: Mapping[str, Any]) -> object:
    others = token.get("top_logprobs")
    if not isinstance(others, list) or not others:
        return None
    return {each.get("token"): each.get("logprob") for each in others if isinstance(each, Mapping)}
