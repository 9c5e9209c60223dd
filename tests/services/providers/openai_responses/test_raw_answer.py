"""Answers of Responses that pass as they are."""

from __future__ import annotations

import pytest

from services.domain.events import RawContent
from services.errors import UpstreamError
from services.providers.openai_responses import RAW_LANE
from tests.stand.responses_stand import RAW_TARGET

DELTA = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta","item_id":"i","output_index":0,'
    b'"content_index":0,"delta":"a"}\n\n'
)
BROKEN = DELTA.replace(b"{", b"{{")


def passed(*pieces: bytes) -> tuple[bytes, UpstreamError | None]:
    """What passes of a stream in these pieces, and its failure."""
    reader = RAW_LANE.decoder(RAW_TARGET, streamed=True).reader()
    data = b""
    for piece in pieces:
        events, failure = reader.feed(piece)
        data += b"".join(event.data for event in events if isinstance(event, RawContent))
        if failure is not None:
            return data, failure
    return data, None


@pytest.mark.parametrize("blank", [b"\n", b"\n\n", b"\r\n\r\n"])
def test_an_event_behind_blank_lines_passes_in_every_slicing(blank: bytes) -> None:
    """One that is no JSON, too: deltas are not read."""
    stream = DELTA + blank + BROKEN + DELTA

    assert passed(stream) == (stream, None)
    for cut in range(1, len(stream)):
        assert passed(stream[:cut], stream[cut:]) == (stream, None), cut
