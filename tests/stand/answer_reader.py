"""An answer as its caller reads it, step by step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.stand.providers.stepwise import WORD


class AnswerReader:
    """One answer, of which a test reads as much as it wants."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = answer.headers
        self.text = ""
        """The text so far."""
        self.error = ""
        """The code of the error; empty where there is none."""
        self.usage: Mapping[str, Any] | None = None
        """The usage that the answer reports."""
        self.guessed = False
        """Whether it is refused because too many invalid keys came from this address."""
        self.done = False
        """Whether the answer is complete: for a stream, whether `[DONE]` has come."""

    @property
    def words(self) -> int:
        """The number of words so far."""
        return len(self.text) // len(WORD)

    async def read_words(self, words: int) -> None:
        """Reads a stream until it has this many words in all."""
        while self.words < words and await self._event():
            pass

    async def read_to_end(self) -> None:
        """Reads until the answer or its connection ends."""
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
        """Reads one line. Returns whether there was one."""
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
            for choice in event.get("choices", ()):  # An error has none.
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
