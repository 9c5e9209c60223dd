"""Load: random calls at a steady rate, of which some disconnect early."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PATH = "/v1/chat/completions"
LEAVES_WITHIN_S = 0.05
"""The longest time to an early disconnect. Some answers are faster."""
PATIENCE_S = 60.0


@dataclass(slots=True)
class Outcomes:
    """The outcomes of the calls."""

    ends: Counter[str] = field(default_factory=Counter)
    """Counts of `whole`, `left` and error codes."""
    wrong: list[str] = field(default_factory=list)
    """Failures of the gateway: a hang, a stream without an end, an error without a code."""

    @property
    def asked(self) -> int:
        """The number of calls that have ended."""
        return self.ends.total()


class Load:
    """Callers of one gateway."""

    def __init__(
        self,
        url: str,
        key: str,
        models: Sequence[str],
        chance: random.Random,
        *,
        leaving: float = 0.0,
    ) -> None:
        """`leaving` is the share of calls that disconnect early."""
        self._url = f"{url}{PATH}"
        self._headers = {"Authorization": f"Bearer {key}"}
        self._models = models
        self._chance = chance
        self._leaving = leaving
        self._http: aiohttp.ClientSession | None = None
        self.outcomes = Outcomes()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Opens the connections of the calls, and closes them in the end."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=self._headers, connector=connector) as self._http:
            yield

    async def run(self, rate: float, seconds: float) -> None:
        """Makes calls at this rate for this time, however slowly they are answered."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as calls:
            for number in range(round(rate * seconds)):
                await asyncio.sleep(began + number / rate - loop.time())
                calls.create_task(self.call())

    async def call(self, *, stays: bool = False) -> str:
        """Makes a call and returns its outcome. With `stays` it does not disconnect early."""
        chance, outcomes = self._chance, self.outcomes
        leaves = not stays and chance.random() < self._leaving
        stay_s = chance.random() * LEAVES_WITHIN_S if leaves else PATIENCE_S
        body = self._body()
        try:
            async with asyncio.timeout(stay_s):
                end = await self._ask(body)
        except TimeoutError:
            end = "left" if leaves else "hung"
        except (aiohttp.ClientError, ValueError, KeyError) as error:
            end = f"{type(error).__name__}"
        outcomes.ends[end] += 1
        if end in {"hung", "internal_error"} or end[0].isupper():
            outcomes.wrong.append(f"{end}: {body['model']}, stream {body['stream']}")
        return end

    def _body(self) -> Mapping[str, Any]:
        chance = self._chance
        return {
            "model": chance.choice(self._models),
            "messages": [{"role": "user", "content": "Hello. " * chance.randrange(1, 200)}],
            "max_tokens": 50,
            "stream": chance.random() < 0.7,
        }

    async def _ask(self, body: Mapping[str, Any]) -> str:
        assert self._http is not None
        async with self._http.post(self._url, json=body) as answer:
            data = await answer.read()
            if answer.content_type != "text/event-stream":
                return _end(json.loads(data))
            *_, last, done, empty = data.split(b"\n\n")
            if (done, empty) != (b"data: [DONE]", b""):
                raise ValueError("a stream without an end")
            return _end(json.loads(last.removeprefix(b"data: ")))


def _end(document: dict[str, dict[str, str]]) -> str:
    return document["error"]["code"] if "error" in document else "whole"
