"""A fake provider of embeddings, which gives each text the same vector in every request.

async with EmbeddingProvider() as provider:
...  # call provider.url
assert provider.entries == [["a", "b"], ["c"]]
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.stand.upstream import FakeUpstream, Request, Script, answer, json_answer

Json = dict[str, Any]
Entry = str | list[int]


def vector_of(entry: Entry, dimensions: int) -> Sequence[float]:
    """The vector of a text: floats that a float32 can hold."""
    chance = random.Random(repr(entry))  # noqa: S311 - no secret
    wanted = [chance.uniform(-1, 1) for _ in range(dimensions)]
    return struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *wanted))


def base64_of(vector: Sequence[float]) -> str:
    """A vector as OpenAI's base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class EmbeddingProvider:
    """A provider on a port of its own: of OpenAI's API, or of another that the path names."""

    def __init__(self, *, dimensions: int = 8, takes_base64: bool = True) -> None:
        """`takes_base64`: whether it answers in base64 where it is asked to."""
        self._upstream = FakeUpstream()
        self._upstream.play(self._answer)
        self._dimensions = dimensions
        self._takes_base64 = takes_base64
        self.usage: Callable[[Sequence[Entry]], Json | None] = tokens_by_length
        """Returns the usage of a request's entries."""
        self.scripts: list[Script] = []
        """Scripts that are played in place of the next answers."""
        self.change: Callable[[Json], Json] = lambda document: document
        """Changes the document of an answer."""

    @property
    def url(self) -> str:
        """The base URL, to be used as a channel's."""
        return self._upstream.url

    @property
    def requests(self) -> Sequence[Request]:
        """The requests so far."""
        return self._upstream.requests

    async def request(self, number: int) -> Request:
        """The request of that number, once it has arrived."""
        return await self._upstream.request(number)

    @property
    def bodies(self) -> Sequence[Json]:
        """Their bodies."""
        return [request.json() for request in self.requests]

    @property
    def entries(self) -> Sequence[Sequence[Entry]]:
        """Their entries."""
        return [_entries(body) for body in self.bodies]

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._upstream.__aexit__(kind, error, trace)

    def _answer(self, request: Request) -> Script:
        if self.scripts:
            return self.scripts.pop(0)
        body = request.json()
        changed = self.change(self._document(request.path, body))
        return [json_answer(changed)]

    def _document(self, path: str, body: Json) -> Json:
        if path.endswith("/embed"):
            return self._cohere(body)
        if path.endswith(":batchEmbedContents"):
            return self._google(body)
        if path.endswith(":predict"):
            return self._vertex(body)
        if path.endswith("/invoke"):
            return self._titan(body) if "inputText" in body else self._listed(body)
        return self._openai(body)

    def _google(self, body: Json) -> Json:
        entries = _entries(body)
        dimensions = body["requests"][0].get("outputDimensionality", self._dimensions)
        usage = self.usage(entries) or {}
        found = [{"values": list(vector_of(entry, dimensions))} for entry in entries]
        counted = {"promptTokenCount": usage["prompt_tokens"]} if usage else {}
        return {"embeddings": found, "usageMetadata": counted}

    def _vertex(self, body: Json) -> Json:
        dimensions = body.get("parameters", {}).get("outputDimensionality", self._dimensions)
        return {
            "predictions": [
                {
                    "embeddings": {
                        "values": list(vector_of(entry, dimensions)),
                        "statistics": {"token_count": len(entry), "truncated": False},
                    }
                }
                for entry in _entries(body)
            ]
        }

    def _titan(self, body: Json) -> Json:
        dimensions = body.get("dimensions", self._dimensions)
        vector = list(vector_of(body["inputText"], dimensions))
        return {"embedding": vector, "inputTextTokenCount": len(body["inputText"])}

    def _listed(self, body: Json) -> Json:
        dimensions = body.get("output_dimension", self._dimensions)
        found = [list(vector_of(entry, dimensions)) for entry in _entries(body)]
        return {"embeddings": found, "id": "e"}

    def _openai(self, body: Json) -> Json:
        entries = _entries(body)
        asked = body.get("dimensions", body.get("output_dimension"))
        dimensions = self._dimensions if asked is None else asked
        vectors = [vector_of(entry, dimensions) for entry in entries]
        in_base64 = self._takes_base64 and body.get("encoding_format") == "base64"
        shown = [base64_of(each) if in_base64 else list(each) for each in vectors]
        data = [
            {"object": "embedding", "index": index, "embedding": each}
            for index, each in enumerate(shown)
        ]
        usage = self.usage(entries)
        document = {"object": "list", "data": data, "model": body["model"]}
        return document if usage is None else {**document, "usage": usage}

    def _cohere(self, body: Json) -> Json:
        entries = _entries(body)
        dimensions = body.get("output_dimension", self._dimensions)
        vectors = [list(vector_of(entry, dimensions)) for entry in entries]
        usage = self.usage(entries) or {}
        billed = {"input_tokens": usage["prompt_tokens"]} if usage else {}
        return {"id": "e", "embeddings": {"float": vectors}, "meta": {"billed_units": billed}}


def tokens_by_length(entries: Sequence[Entry]) -> Json:
    """The usage of a provider whose tokens are the characters or the IDs of the entries."""
    tokens = sum(map(len, entries))
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def raw_document(text: str) -> Script:
    """An answer whose body is this JSON text."""
    return [answer(text.encode(), content_type="application/json")]


def _entries(body: Json) -> Sequence[Entry]:
    if "requests" in body:
        return [each["content"]["parts"][0]["text"] for each in body["requests"]]
    if "instances" in body:
        return [each["content"] for each in body["instances"]]
    if "inputText" in body:
        return [body["inputText"]]
    found = body.get("input", body.get("texts"))
    assert isinstance(found, list)
    return found
