"""Raw replays: answers that were passed on as they are, to calls that want the other form.

A client that repeats a request without `stream` gets the document of a stream, and the reverse. Its
content is the same, its bytes are translated.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec.structs import replace

from services.domain.events import Batch, Event, Finished, RawContent, RawForm, Started
from services.providers.raw_call import RawCall


async def in_form(
    batches: AsyncGenerator[Batch, None], raw: RawCall, *, stream: bool
) -> AsyncGenerator[Batch, None]:
    """Yield the batches of an answer, translated where it is passed on in the other form.

    Such an answer comes as one batch, when it is complete.
    """
    other: RawForm = "document" if stream else "events"
    started: Started | None = None
    passed: list[Event] = []
    async with aclosing(batches):
        async for batch in batches:
            first = batch[0] if batch else None
            if isinstance(first, Started) and first.raw_form == other:
                started = first
            if started is None or not batch:
                yield batch  # An empty one says that the reader has left.
            else:
                passed += batch
    if started is not None:
        yield _translated(started, passed, raw)


def _translated(started: Started, passed: list[Event], raw: RawCall) -> Batch:
    data = b"".join(event.data for event in passed if isinstance(event, RawContent))
    finished = passed[-1]
    if not isinstance(finished, Finished):
        raise TypeError("an answer that was passed on has no end")
    events = raw.translated_answer(started.raw_form, data)
    return [replace(started, raw_form=""), *events[:-1], finished]
