"""Cache writes that a request asks for by its cache marks.

The provider's answer says how many tokens were written. A call that its caller ends before that is
charged for its whole prompt as a cache write: such tokens may cost twice as much as others.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.domain.conversation import OtherPart
from services.domain.spec import ChatCompletionSpec

_MARK = b"cache_control"
_FOR_AN_HOUR = b'"1h"'


def wanted_cache_write(spec: ChatCompletionSpec) -> bool | None:
    """Return whether the prompt is to be kept for an hour. None: it has no marks."""
    marks = [mark for mark in _marks(spec) if mark]
    return any(_FOR_AN_HOUR in mark for mark in marks) if marks else None


def _marks(spec: ChatCompletionSpec) -> Iterator[bytes]:
    """Yield the marks, and JSON that has some, at all places of a request."""
    yield spec.cache_control_json
    for tool in spec.tools:
        yield tool.cache_control_json
        yield from _within(tool.other_json)
    for message in spec.messages:
        yield message.cache_control_json
        for call in message.tool_calls:
            yield call.cache_control_json
        for part in message.content:
            yield part.cache_control_json
            if isinstance(part, OtherPart):
                yield from _within(part.json)


def _within(json: bytes) -> Iterator[bytes]:
    if _MARK in json:
        yield json
