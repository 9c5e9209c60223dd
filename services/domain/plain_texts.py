"""Plain requests: texts and the most frequent parameters, and nothing else.

Most requests are plain. One check finds them, so that the core need not look at the rare fields of
such a request one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from services.domain.conversation import Message, TextPart
from services.domain.spec import ITEM_BYTES, ChatCompletionSpec

PLAIN_PARAMETERS: Sequence[str] = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "user",
)
"""Parameters of a plain request besides `max_tokens`, all of which are sent as they are."""

PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})

_OTHERS = [
    name
    for name in ChatCompletionSpec.__struct_fields__
    if name not in {"model", "messages", "max_tokens", *PLAIN_PARAMETERS}
]
_OTHERS_OF_MESSAGE = [name for name in Message.__struct_fields__ if name not in {"role", "content"}]
_others = attrgetter(*_OTHERS)
_others_of_message = attrgetter(*_OTHERS_OF_MESSAGE)
_NONE = _others(ChatCompletionSpec(model=""))
_NONE_OF_MESSAGE = _others_of_message(Message(role=""))


def plain_texts(spec: ChatCompletionSpec) -> list[str] | None:
    """Return the text of each message of a plain request. None: the request is not plain."""
    if _others(spec) != _NONE:
        return None
    texts = []
    for message in spec.messages:
        content = message.content
        if len(content) != 1 or message.role not in PLAIN_ROLES:
            return None
        part = content[0]
        if type(part) is not TextPart or part.extra_json or part.cache_control_json:
            return None
        if _others_of_message(message) != _NONE_OF_MESSAGE:
            return None
        texts.append(part.text)
    return texts


def plain_bytes(texts: Sequence[str]) -> int:
    """Return the bytes of a plain request, as `read_bytes` counts them."""
    return 2 * ITEM_BYTES * len(texts) + sum(map(len, texts))
