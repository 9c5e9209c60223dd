"""Channel pages: the state of all channels, their switches and tests."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web

from gateway.console.askers import operator_of
from gateway.console.form_fields import Fields, unknown_action
from gateway.console.operation_calls import OperationCalls
from gateway.console.operator_pages import CHANNELS
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit
from gateway.errors import invalid

BREAKERS: Mapping[int, str] = {1: "closed", 2: "half_open", 3: "open"}
"""States of circuit breakers, by their number in the contract."""


KEY_NUMBER_MAX = 2**31 - 1


class ChannelPages:
    """Pages about channels, for operators."""

    def __init__(self, pages: Pages, calls: OperationCalls) -> None:
        self._pages = pages
        self._calls = calls

    async def channels(self, visit: Visit) -> web.Response:
        """The state of all channels."""
        return await self._channels(visit)

    async def _channels(self, visit: Visit, **test: object) -> web.Response:
        """Show the channels, and the result of a test that was just made."""
        channels = await self._calls.channels(operator_of(visit))
        return self._pages.render(
            visit,
            "channels",
            channels=channels,
            names=sorted({each.channel for each in channels}),
            breakers=BREAKERS,
            test=test,
        )

    async def test(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Test a channel with one small request. Its result is on this page alone."""
        fields = Fields(form)
        channel, key_number = fields.text("channel"), fields.size("key_number") or 0
        if key_number > KEY_NUMBER_MAX:
            raise invalid("key_number", "`key_number` is that of no key.")
        result = await self._calls.test_channel(
            operator_of(visit), channel, fields.text("model"), key_number
        )
        return await self._channels(visit, channel=channel, key_number=key_number, result=result)

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
