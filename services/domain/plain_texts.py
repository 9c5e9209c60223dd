"""Plain requests: texts and the most frequent parameters, and nothing else.

Most requests are plain. One check finds them, so that the core need not look at the rare fields of
such a request one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter, itemgetter

from services.domain.conversation import Message, Part, TextPart
from services.domain.spec import ChatCompletionSpec

PLAIN_PARAMETERS: Sequence[str] = (
    *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"),
    *("repetition_penalty", "seed", "stop", "user"),
)
"""Parameters of a plain request besides `max_tokens`, all of which are sent as they are."""

PLAIN_ROLES = frozenset({"system", "developer", "user", "assistant"})

_OTHERS = [
    name
    for name in ChatCompletionSpec.__struct_fields__
    if name not in {"model", "messages", "max_tokens", *PLAIN_PARAMETERS}
]
_OTHERS_OF_MESSAGE = [name for name in Message.__struct_fields__ if name not in {"role", "content"}]
_OTHERS_OF_PART = ["__class__", *Part.__struct_fields__]
_others = attrgetter(*_OTHERS)
_others_of_message = attrgetter(*_OTHERS_OF_MESSAGE)
_others_of_part = attrgetter(*_OTHERS_OF_PART)
_NONE = _others(ChatCompletionSpec(model=""))
_NONE_OF_MESSAGE = _others_of_message(Message(role=""))
_NONE_OF_PART = _others_of_part(TextPart(text=""))
_role, _content, _text = attrgetter("role"), attrgetter("content"), attrgetter("text")
_first = itemgetter(0)


def plain_texts(spec: ChatCompletionSpec) -> list[str] | None:
    """Return the text of each message of a plain request. None: the request is not plain."""
    # Each check is made of all messages at once: conversations may be long.
    messages = spec.messages
    number = len(messages)
    if _others(spec) != _NONE or not PLAIN_ROLES.issuperset(map(_role, messages)):
        return None
    if list(map(_others_of_message, messages)) != [_NONE_OF_MESSAGE] * number:
        return None
    contents = list(map(_content, messages))
    if list(map(len, contents)) != [1] * number:
        return None
    parts = list(map(_first, contents))
    if list(map(_others_of_part, parts)) != [_NONE_OF_PART] * number:
        return None
    return list(map(_text, parts))
