"""Channel pages: the state of all channels, their switches and tests."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp import web
from pomogator.operations.v1 import operations_service_pb2 as pb
from pomogator.operations.v1.operations_service_pb2_grpc import OperationsServiceStub

from gateway.console.askers import TIMEOUT_S, ask, operator_of
from gateway.console.form_fields import Fields, unknown_action
from gateway.console.operator_pages import CHANNELS
from gateway.console.pages import Pages, redirect
from gateway.console.visit import Visit
from gateway.errors import invalid

BREAKERS: Mapping[int, str] = {1: "closed", 2: "half_open", 3: "open"}
"""States of circuit breakers, by their number in the contract."""


KEY_NUMBER_MAX = 2**31 - 1
TEST_TIMEOUT_S = 30
"""How long a test of a channel may take."""


class ChannelPages:
    """Pages about channels, for operators."""

    def __init__(self, pages: Pages, operations: OperationsServiceStub) -> None:
        self._pages = pages
        self._operations = operations

    async def channels(self, visit: Visit) -> web.Response:
        """The state of all channels."""
        return await self._channels(visit)

    async def _channels(self, visit: Visit, **test: object) -> web.Response:
        """Show the channels, and the result of a test that was just made."""
        request = pb.ListChannelsRequest()
        channels = (await ask(self._operations.ListChannels, request, operator_of(visit))).channels
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
        request = pb.TestChannelRequest(
            channel=channel, model=fields.text("model"), key_number=key_number
        )
        request.timeout.FromSeconds(TEST_TIMEOUT_S)
        timeout_s = TEST_TIMEOUT_S + TIMEOUT_S
        result = await ask(self._operations.TestChannel, request, operator_of(visit), timeout_s)
        return await self._channels(visit, channel=channel, key_number=key_number, result=result)

    async def switch(self, visit: Visit, form: Mapping[str, str]) -> web.Response:
        """Disable or enable a channel."""
        fields, asker = Fields(form), operator_of(visit)
        channel = fields.text("channel")
        match fields.text("action"):
            case "disable":
                request = pb.DisableChannelRequest(channel=channel, reason=fields.text("reason"))
                if (seconds := fields.seconds("hours")) is not None:
                    request.expire_time.FromSeconds(int(time.time()) + seconds)
                await ask(self._operations.DisableChannel, request, asker)
            case "enable":
                enabling = pb.EnableChannelRequest(channel=channel)
                await ask(self._operations.EnableChannel, enabling, asker)
            case _:
                raise unknown_action()
        return redirect(CHANNELS)
