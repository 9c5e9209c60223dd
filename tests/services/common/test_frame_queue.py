"""Frames of a relay that wait to be sent."""

from __future__ import annotations

import asyncio

from pomogator.relay.v1 import relay_service_pb2 as pb

from services.common.frame_queue import FrameQueue


async def test_frames_of_two_turns_of_the_loop_go_in_one_message() -> None:
    """A message costs more than the frames in it. Those that come later are not waited for."""
    queue = FrameQueue(pb.RelayResponse)
    waiting = asyncio.create_task(queue.wait_for_news())
    await asyncio.sleep(0)
    queue.add(1)
    await asyncio.sleep(0)  # The task sees the news.
    assert not waiting.done()
    queue.add(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.done()
    message = queue.take()
    assert message is not None
    assert [frame.call_id for frame in message.frames] == [1, 2]
    assert queue.take() is None
