"""Embeddings through the whole gateway, with OpenAI's SDK and without."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError

from services.embedding_limits import EmbeddingLimits
from tests.stand.embedding_provider import (
    EmbeddingProvider,
    base64_of,
    raw_document,
    vector_of,
)
from tests.stand.embedding_stand import MODEL, UPSTREAM_MODEL, embedding_stand
from tests.stand.gateway import TRANSPORTS, Transport

TEXTS = ["a first text", "другой текст", "第三"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("takes_base64", [True, False])
async def test_both_encodings_give_the_same_vectors(
    tmp_path: Path, transport: Transport, takes_base64: bool
) -> None:
    """OpenAI's SDK asks for base64 unless it is told otherwise, whatever the provider answers."""
    provider = EmbeddingProvider(takes_base64=takes_base64)
    async with (
        embedding_stand(tmp_path, provider, transport=transport) as stand,
        stand.client() as client,
    ):
        default = await client.embeddings.create(model=MODEL, input=TEXTS)
        floats = await client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")

    assert [each.index for each in default.data] == [0, 1, 2]
    assert default.model == MODEL
    assert default.usage.prompt_tokens == default.usage.total_tokens == sum(map(len, TEXTS))
    for text, one, other in zip(TEXTS, default.data, floats.data, strict=True):
        assert one.embedding == other.embedding == list(vector_of(text, 8))


async def test_numbers_stay_as_the_provider_has_written_them(tmp_path: Path) -> None:
    """No digit changes between a provider and a caller that both use numbers."""
    written = "[0.1, -1.50e-3,0.006929283495992422, 7]"
    async with embedding_stand(tmp_path) as stand:
        stand.provider.scripts.append(
            raw_document(f'{{"data":[{{"index":0,"embedding":{written}}}],"usage":null}}')
        )
        answer = await stand.ask({"input": "a"})

    assert f'"embedding":{written}}}'.encode() in answer.body


async def test_a_text_alone_is_one_entry(tmp_path: Path) -> None:
    """So is a text as token IDs, for a model that takes them."""
    async with embedding_stand(tmp_path) as stand:
        for entry in ("Hello", [9906, 1917]):
            answer = await stand.ask({"input": entry})
            assert answer.status == 200
            assert [each["index"] for each in answer.json["data"]] == [0]
        assert list(stand.provider.entries) == [["Hello"], [[9906, 1917]]]


async def test_token_ids_go_to_models_that_take_them(tmp_path: Path) -> None:
    """LangChain sends them by default. Other models refuse them with 400."""
    entries = [[9906, 1917], [1, 2, 3]]
    async with embedding_stand(tmp_path / "a") as stand, stand.client() as client:
        answer = await client.embeddings.create(model=MODEL, input=entries)
        assert answer.usage.prompt_tokens == 5
        assert list(stand.provider.entries) == [entries]
    async with (
        embedding_stand(tmp_path / "b", limits=EmbeddingLimits()) as stand,
        stand.client() as client,
    ):
        with pytest.raises(BadRequestError) as refused:
            await client.embeddings.create(model=MODEL, input=entries)
        assert refused.value.param == "input"
        assert not stand.provider.requests


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [[1], []]}, "input[1]"),
        ({"input": [[-1]]}, "input[0]"),
        ({"input": [1.5]}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"input": [["a"]]}, "input[0][0]"),
        ({"input": [[2**31]]}, "input[0]"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"input": "a", "model": ""}, "model"),
        ({"input": "a", "model": 1}, "model"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 1.5}, "dimensions"),
        ({"input": "a", "dimensions": 4096}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "user": 1}, "user"),
        ({"input": ["a"] * 16_385}, "input"),
        ({"input": [1] * 8193}, "input[0]"),
    ],
)
async def test_a_wrong_request_names_its_fault(
    tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    """It is refused with 400 before a provider is asked."""
    async with embedding_stand(tmp_path) as stand:
        answer = await stand.ask(body)

        assert answer.status == 400
        assert answer.json["error"]["param"] == param
        assert not stand.provider.requests


async def test_dimensions_are_sent_and_held(tmp_path: Path) -> None:
    """A provider that ignores them has given another answer than was asked for."""
    async with embedding_stand(tmp_path) as stand:
        answer = await stand.ask({"input": "a", "dimensions": 3})
        assert len(answer.json["data"][0]["embedding"]) == 3
        assert stand.provider.bodies[0]["dimensions"] == 3

        stand.provider.change = lambda _: {"data": [{"index": 0, "embedding": [1, 2]}]}
        answer = await stand.ask({"input": "a", "dimensions": 3})
        assert answer.status == 502


async def test_further_fields_are_sent_or_noted(tmp_path: Path) -> None:
    """A field that the provider does not take has a note, or is refused."""
    limits = EmbeddingLimits()
    fields = {
        "input": "a",
        "user": "u-1",
        "input_type": "query",
        "truncate": "END",
        "output_dtype": "int8",
        "store": True,
    }
    unknown = [{"models": {MODEL: "unknown-embedding"}}]
    async with embedding_stand(tmp_path, limits=limits, channels=unknown) as stand:
        answer = await stand.ask(fields)
        notes = json.loads(answer.headers["x-pomogator-notes"])
        strict = await stand.ask(fields, headers={"x-pomogator-mode": "strict"})

        assert stand.provider.bodies == [
            {
                "model": "unknown-embedding",
                "input": ["a"],
                "user": "u-1",
                "input_type": "query",
                "truncate": "END",
            }
        ]
    assert {note["param"] for note in notes} == {"output_dtype", "store"}
    assert (strict.status, strict.json["error"]["param"]) == (400, "output_dtype")


async def test_many_entries_are_asked_for_in_parts(tmp_path: Path) -> None:
    """No part has more than the provider takes; the answer has all of them in order."""
    texts = [f"text {number}" for number in range(4500)]
    async with embedding_stand(tmp_path) as stand, stand.client() as client:
        answer = await client.embeddings.create(model=MODEL, input=texts)

        assert [len(part) for part in stand.provider.entries] == [2048, 2048, 404]
    assert [each.index for each in answer.data] == list(range(4500))
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    for text, each in zip(texts, answer.data, strict=True):
        assert each.embedding == list(vector_of(text, 8))


async def test_parts_have_no_more_tokens_than_the_provider_takes(tmp_path: Path) -> None:
    """The tokens of texts are estimated upward, those of IDs are known."""
    limits = EmbeddingLimits(token_ids=True, tokens_max=100)
    entries = [[1] * 40, [2] * 60, [3] * 10, [4] * 100, [5]]
    async with embedding_stand(tmp_path, limits=limits) as stand:
        answer = await stand.ask({"input": entries})

        assert len(answer.json["data"]) == 5
        assert [len(part) for part in stand.provider.entries] == [2, 1, 1, 1]


async def test_the_order_of_the_entries_is_restored(tmp_path: Path) -> None:
    """Some providers answer in the order in which they finish."""
    async with embedding_stand(tmp_path) as stand, stand.client() as client:
        stand.provider.change = lambda found: {**found, "data": found["data"][::-1]}
        answer = await client.embeddings.create(model=MODEL, input=TEXTS)

    for text, each in zip(TEXTS, answer.data, strict=True):
        assert each.embedding == list(vector_of(text, 8))


GOOD = base64_of([1.0, 2.0])
WRONG: dict[str, list[dict[str, Any]]] = {
    "one is missing": [{"index": 0, "embedding": GOOD}],
    "one too many": [{"index": index, "embedding": GOOD} for index in range(3)],
    "one comes twice": [{"index": 0, "embedding": GOOD}, {"index": 0, "embedding": GOOD}],
    "an index is too large": [{"index": 0, "embedding": GOOD}, {"index": 2, "embedding": GOOD}],
    "lengths differ": [{"embedding": GOOD}, {"embedding": base64_of([1.0])}],
    "one is empty": [{"embedding": GOOD}, {"embedding": ""}],
    "a NaN": [{"embedding": GOOD}, {"embedding": base64_of([1.0, float("nan")])}],
    "an infinity": [{"embedding": GOOD}, {"embedding": base64_of([1.0, float("inf")])}],
    "too large for a float32": [{"embedding": [1, 2]}, {"embedding": [1, 1e39]}],
    "no base64": [{"embedding": GOOD}, {"embedding": "AAAAA"}],
    "bytes that are no floats": [{"embedding": GOOD}, {"embedding": "AAA="}],
    "a null": [{"embedding": GOOD}, {"embedding": None}],
    "a text among the numbers": [{"embedding": [1, 2]}, {"embedding": [1, "2"]}],
    "lists of lists": [{"embedding": [[1, 2]]}, {"embedding": [[1, 2]]}],
    "nothing": [{}, {}],
}


@pytest.mark.parametrize("encoding", ["base64", "float"])
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
async def test_a_wrong_answer_is_an_error_of_the_provider(
    tmp_path: Path, data: list[dict[str, Any]], encoding: str
) -> None:
    """The caller gets 502 and pays nothing, never vectors of other entries."""
    async with embedding_stand(tmp_path) as stand:
        key = await stand.open_account()
        stand.provider.change = lambda found: {**found, "data": data}
        answer = await stand.ask({"input": ["a", "b"], "encoding_format": encoding}, key)

        assert (answer.status, answer.code) == (502, "upstream_bad_response")
        assert await stand.spent_nano() == 0


async def test_models_are_of_one_kind(tmp_path: Path) -> None:
    """One that computes embeddings writes no completions, and the reverse."""
    chat = [{"models": {MODEL: "gpt-4o"}}]
    async with embedding_stand(tmp_path / "a", channels=chat) as stand:
        answer = await stand.ask({"input": "a"})
        assert (answer.status, answer.code) == (400, "model_not_found")
        assert "no embeddings" in answer.json["error"]["message"]
    async with embedding_stand(tmp_path / "b") as stand, stand.client() as client:
        with pytest.raises(BadRequestError, match="/v1/embeddings") as refused:
            await client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "a"}]
            )
        assert refused.value.code == "model_not_found"
        listed = [model.id async for model in client.models.list()]
        assert listed == [MODEL]


async def test_cohere_answers_in_openais_form(tmp_path: Path) -> None:
    """Its requests are of 96 texts, and need an input type."""
    texts = [f"text {number}" for number in range(200)]
    cohere = [{"dialect": "cohere", "models": {MODEL: "embed-v4.0"}}]
    async with embedding_stand(tmp_path, channels=cohere) as stand, stand.client() as client:
        raw = await client.embeddings.with_raw_response.create(
            model=MODEL, input=texts, dimensions=256, extra_body={"truncate": "END"}
        )
        answer = raw.parse()
        chosen = await stand.ask({"input": "a", "input_type": "query", "user": "u"})

        assert [len(part) for part in stand.provider.entries] == [96, 96, 8, 1]
        first, *_, last = stand.provider.bodies
    assert first | {"texts": []} == {
        "model": "embed-v4.0",
        "texts": [],
        "input_type": "search_document",
        "embedding_types": ["float"],
        "output_dimension": 256,
        "truncate": "END",
    }
    assert last["input_type"] == "search_query"
    assert answer.usage.prompt_tokens == sum(map(len, texts))
    for text, each in zip(texts, answer.data, strict=True):
        assert each.embedding == list(vector_of(text, 256))
    notes = json.loads(raw.headers["x-pomogator-notes"])
    assert [(note["param"], note["action"]) for note in notes] == [("input_type", "mapped")]
    dropped = json.loads(chosen.headers["x-pomogator-notes"])
    assert {(note["param"], note["action"]) for note in dropped} == {
        ("input_type", "mapped"),
        ("user", "dropped"),
    }


async def test_voyage_needs_only_a_row(tmp_path: Path) -> None:
    """Its parameter of dimensions has another name, and it may report no tokens."""
    voyage = [{"models": {MODEL: "voyage-3.5"}}]
    async with embedding_stand(tmp_path, channels=voyage) as stand:
        stand.provider.usage = lambda _: {"total_tokens": 0}
        answer = await stand.ask({"input": ["abcdefgh"], "dimensions": 512, "input_type": "query"})
        refused = await stand.ask({"input": "a", "dimensions": 100})

        (body,) = stand.provider.bodies
    assert body == {
        "model": "voyage-3.5",
        "input": ["abcdefgh"],
        "output_dimension": 512,
        "input_type": "query",
    }
    assert answer.json["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert (refused.status, refused.json["error"]["param"]) == (400, "dimensions")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_idempotent_call_is_made_once(tmp_path: Path, transport: Transport) -> None:
    """A repeat gets the same vectors and headers, and is not billed."""
    async with embedding_stand(tmp_path, transport=transport) as stand:
        key, named = await stand.open_account(), {"Idempotency-Key": "one"}
        body = {"input": TEXTS}
        first = await stand.ask(body, key, named)
        again = await stand.ask(body, key, named)
        other = await stand.ask({"input": "another"}, key, named)

        assert again.body == first.body
        assert again.headers["x-pomogator-cost"] == first.headers["x-pomogator-cost"]
        assert (first.replayed, again.replayed) == (False, True)
        assert other.status == 422
        assert len(stand.provider.requests) == 1
        assert await stand.spent_nano() == sum(map(len, TEXTS)) * 2_000


async def test_equal_calls_at_once_are_made_once(tmp_path: Path) -> None:
    """Those that come while the first one runs get 409."""
    goes_on = asyncio.Event()
    async with embedding_stand(tmp_path) as stand:
        stand.provider.scripts.append([goes_on, *raw_document('{"data":[{"embedding":[1]}]}')])
        named = {"Idempotency-Key": "one"}
        first = asyncio.create_task(stand.ask({"input": "a"}, headers=named))
        await stand.provider.request(0)
        second = await stand.ask({"input": "a"}, headers=named)
        goes_on.set()

        assert second.status == 409
        assert (await first).status == 200


async def test_the_answer_is_of_openais_form(tmp_path: Path) -> None:
    """Members and their order are those of OpenAI's API."""
    async with embedding_stand(tmp_path) as stand:
        answer = await stand.ask({"input": "a", "encoding_format": "base64"})

    document = answer.json
    assert list(document) == ["object", "data", "model", "usage"]
    assert document["object"] == "list"
    assert list(document["data"][0]) == ["object", "index", "embedding"]
    decoded = struct.unpack("<8f", base64.b64decode(document["data"][0]["embedding"]))
    assert decoded == vector_of("a", 8)
    assert UPSTREAM_MODEL not in answer.body.decode()
