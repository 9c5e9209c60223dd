"""A call as its caller sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.stand.providers.stepwise import WORD


class AnswerReader:
    """One answer, read as far as the test wants."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers
        self.text = ""
        """What the model has said so far."""
        self.error = ""
        """Why it failed, if it did."""
        self.usage: Mapping[str, Any] | None = None
        """What it said that it took."""
        self.guessed = False
        """Whether it is refused since too many keys from here were not good: its own is not."""
        self.done = False
        """Whether the end was said: `[DONE]` in a stream."""

    @property
    def words(self) -> int:
        """How many words have arrived."""
        return len(self.text) // len(WORD)

    async def read_words(self, words: int) -> None:
        """Reads a stream until there are so many words in all."""
        while self.words < words and await self._event():
            pass

    async def read_to_end(self) -> None:
        """Reads to the end, whichever that is."""
        try:
            if self._answer.content_type == "text/event-stream":
                while await self._event():
                    pass
            else:
                self._whole(json.loads(await self._answer.read()))
        except (aiohttp.ClientError, ConnectionError):
            pass  # The edge died.
        self._answer.release()

    def leave(self) -> None:
        """Closes the connection."""
        self._answer.close()

    async def _event(self) -> bool:
        """Reads one line; whether there was one."""
        line = await self._answer.content.readline()
        if not line.startswith(b"data: "):
            return bool(line)
        data = line.removeprefix(b"data: ").strip()
        assert not self.done, "something after the end"
        if data == b"[DONE]":
            self.done = True
        else:
            event = json.loads(data)
            self.error = event.get("error", {}).get("code", self.error)
            self.usage = event.get("usage") or self.usage
            for choice in event["choices"]:
                self.text += choice["delta"].get("content") or ""
        return True

    def _whole(self, body: Any) -> None:
        self.done = True
        if self.status == 200:
            self.text = body["choices"][0]["message"]["content"]
            self.usage = body["usage"]
        else:
            self.error = body["error"]["code"]
            self.guessed = "no valid API key" in body["error"]["message"]
