"""Channel pages: the state of all channels, and their switches."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web

from gateway.console.form_fields import Fields
from gateway.console.operation_calls import OperationCalls
from gateway.console.operator_pages import CHANNELS, operator_of, unknown_action
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit

BREAKERS: Mapping[int, str] = {1: "closed", 2: "half_open", 3: "open"}
"""States of circuit breakers, by their number in the contract."""


class ChannelPages:
    """Pages about channels, for operators."""

    def __init__(self, pages: Pages, calls: OperationCalls) -> None:
        self._pages = pages
        self._calls = calls

    async def channels(self, visit: Visit) -> web.Response:
        """The state of all channels."""
        channels = await self._calls.channels(operator_of(visit))
        return self._pages.render(
            visit,
            "channels",
            channels=channels,
            names=sorted({each.channel for each in channels}),
            breakers=BREAKERS,
        )

    async def switch(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Disable or enable a channel."""
        fields, asker = Fields(form), operator_of(visit)
        channel = fields.text("channel")
        match fields.text("action"):
            case "disable":
                seconds = fields.seconds("hours")
                until_s = None if seconds is None else int(time.time()) + seconds
                await self._calls.disable_channel(asker, channel, fields.text("reason"), until_s)
            case "enable":
                await self._calls.enable_channel(asker, channel)
            case _:
                raise unknown_action()
        return redirect(CHANNELS)
