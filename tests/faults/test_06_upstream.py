"""b.6: what providers do wrong, and what it comes to for callers."""

from __future__ import annotations

from tests.fakes.upstream import CUT
from tests.faults.world import BEGIN, World


async def test_056_cut_mid_stream(world: World) -> None:
    """A stream that breaks off ends with an error and [DONE]; no `stop` is made up."""
    world.play([BEGIN, CUT])

    reply = await world.ask()

    assert (reply.status, reply.code, reply.events[-1]) == (200, "upstream_disconnected", "[DONE]")
    assert reply.finishes == []
    assert world.second.requests == []
    calls, charge = await world.charged()
    assert calls == 1
    assert charge > 0
    assert world.metric("stream_end_total", end="upstream_eof") == 1
