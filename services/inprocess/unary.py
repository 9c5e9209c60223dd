"""A call with one answer."""

from __future__ import annotations

from collections.abc import Generator
from types import CoroutineType
from typing import Any

import grpc

from services.inprocess.call import FINE, InProcessCall


class UnaryCall(InProcessCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one answer. It may be awaited any number of times."""

    _response: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        """Run the handler. Returns the answer, or raises the error of the call."""
        return self._answer().__await__()

    async def wait_for_connection(self) -> None:
        """Wait for the end, as over a socket. Raises the error of the call."""
        await self._end()
        self.raise_for_status()

    async def _answer(self) -> Any:
        if not self.started and self._outcome is None:
            self.started = True
            await self._run()
        while self._outcome is None:
            await self._change_or_cancel()
        if self._outcome is not FINE:
            self.raise_for_status()
        return self._response

    async def _run(self) -> None:
        self._drive()
        context = self._context
        error: BaseException | None = None
        try:
            handler = self._method.handler or await self._find()
            respond: Any = handler.unary_unary or await self._refuse(handler)
            response = respond(self._request, context)
            if type(response) is CoroutineType:
                response = await response
            if response is None and context.final_code is grpc.StatusCode.OK:
                raise TypeError("the handler returned no answer")
            self._response = response
        except BaseException as raised:  # noqa: BLE001 - this is the server's border
            error = raised
        if error is None and self._outcome is None and context.is_fine():
            self._driver = None
            self._conclude(FINE)
            context.handler_ended()
        else:
            await self._left(error)
