"""Vectors keep each of their bits from a provider's text to the caller, over REST and gRPC."""

from __future__ import annotations

import base64
import json
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc
import pytest
from pomogator.embeddings.v1 import embedding_service_pb2 as pb
from pomogator.embeddings.v1 import embedding_service_pb2_grpc as pb_grpc

from services.embedding_limits import EmbeddingLimits
from services.rpc.listener import listening
from tests.stand.embedding_provider import base64_of, raw_document
from tests.stand.embedding_stand import MODEL, EmbeddingStand, embedding_stand
from tests.stand.gateway import TRANSPORTS, Transport

DIMENSIONS = 8192
VECTORS = 3
EDGES = (0.0, -0.0, 1.0, 0.1, 16_777_216.0, 3.4028235e38, 1.17549435e-38, 1.4e-45, -9.999999e-5)
"""Floats whose digits are few or many: zeros, the largest, the smallest, the subnormal."""

ANY_MODEL = EmbeddingLimits()
IN_BASE64 = EmbeddingLimits(base64=True)


def float32s(chance: random.Random) -> Sequence[float]:
    """A vector of random bits that are finite numbers, and of those at the edges."""
    found = [*EDGES]
    while len(found) < DIMENSIONS:
        (number,) = struct.unpack("<f", chance.randbytes(4))
        if math.isfinite(number) and abs(number) < 1e34:
            found.append(number)
    return struct.unpack(f"<{DIMENSIONS}f", packed(found))


def packed(vector: Sequence[float]) -> bytes:
    """A vector as the float32 that its numbers are read as."""
    return struct.pack(f"<{len(vector)}f", *vector)


def nine_digits(vector: Sequence[float]) -> str:
    """A vector in as many digits as a float32 needs."""
    return f"[{', '.join(f'{each:.8e}' for each in vector)}]"


WRITTEN: Mapping[str, Callable[[Sequence[float]], str]] = {
    "9 digits": nine_digits,
    "17 digits": lambda vector: json.dumps(list(vector)),
    "base64": lambda vector: json.dumps(base64_of(vector)),
}
"""How providers write a vector."""


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("form", WRITTEN)
async def test_each_bit_arrives(tmp_path: Path, transport: Transport, form: str) -> None:
    """As base64, as numbers, and as bytes over gRPC, whatever the provider sends."""
    chance = random.Random(form)  # noqa: S311 - no secret
    vectors = [float32s(chance) for _ in range(VECTORS)]
    shown = [WRITTEN[form](each) for each in vectors]
    data = ",".join(f'{{"index":{index},"embedding":{each}}}' for index, each in enumerate(shown))
    document = raw_document(f'{{"data":[{data}]}}')
    limits = IN_BASE64 if form == "base64" else ANY_MODEL
    async with embedding_stand(tmp_path, limits=limits, transport=transport) as stand:
        stand.provider.scripts += [document] * 4
        entries = ["a"] * VECTORS
        in_base64 = await stand.ask({"input": entries, "encoding_format": "base64"})
        numbers = await stand.ask({"input": entries, "encoding_format": "float"})
        wide, written = await over_grpc(stand, entries)

    for index, vector in enumerate(vectors):
        bits = packed(vector)
        assert base64.b64decode(in_base64.json["data"][index]["embedding"]) == bits
        assert packed(numbers.json["data"][index]["embedding"]) == bits
        assert wide.embeddings[index].float32_le == bits
        if form != "base64":
            assert written.embeddings[index].numbers_json == shown[index]


async def over_grpc(
    stand: EmbeddingStand, texts: Sequence[str]
) -> tuple[pb.CreateEmbeddingsResponse, pb.CreateEmbeddingsResponse]:
    """The answers of the gRPC method: as float32, and as the provider has written them."""
    metadata = (("authorization", f"Bearer {stand.gateway.key}"),)
    async with (
        listening(stand.gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        create = pb_grpc.EmbeddingServiceStub(channel).CreateEmbeddings
        spec = pb.EmbeddingSpec(model=MODEL, texts=texts)
        first = await create(pb.CreateEmbeddingsRequest(spec=spec), metadata=metadata)
        asked = pb.CreateEmbeddingsRequest(spec=spec, wants_numbers=True)
        return first, await create(asked, metadata=metadata)


async def test_grpc_has_the_failures_of_rest(tmp_path: Path) -> None:
    """With the reason in the status, and the path of the field."""
    async with (
        embedding_stand(tmp_path) as stand,
        listening(stand.gateway.service.register, "127.0.0.1:0", grace_s=0) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        create = pb_grpc.EmbeddingServiceStub(channel).CreateEmbeddings
        metadata = (("authorization", f"Bearer {stand.gateway.key}"),)
        spec = pb.EmbeddingSpec(model=MODEL)
        both = pb.EmbeddingSpec(model=MODEL, texts=["a"])
        both.token_ids.add(ids=[1])
        bad_json = pb.EmbeddingSpec(model=MODEL, texts=["a"], extra_json="[")
        for wrong in (spec, both, bad_json):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await create(pb.CreateEmbeddingsRequest(spec=wrong), metadata=metadata)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await create(pb.CreateEmbeddingsRequest(spec=both))
        assert unknown.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not stand.provider.requests


async def test_large_answers_are_sent_as_float32(tmp_path: Path) -> None:
    """The provider's digits would be five times as many bytes; the same numbers are read."""
    count = 500
    async with embedding_stand(tmp_path, limits=ANY_MODEL) as stand:
        vector = [0.1, 1e-7, -0.25] * 341 + [1.0]
        data = ",".join([f'{{"embedding":{json.dumps(vector)}}}'] * count)
        stand.provider.scripts.append(raw_document(f'{{"data":[{data}]}}'))
        answer = await stand.ask({"input": ["a"] * count})

    assert len(answer.json["data"]) == count
    assert all(each["embedding"] == vector for each in answer.json["data"])


async def test_more_vectors_than_an_answer_has_are_refused(tmp_path: Path) -> None:
    """Before a provider is asked, where the model's row tells how long they are."""
    known = EmbeddingLimits(dimensions_max=4096)
    async with embedding_stand(tmp_path, limits=known) as stand:
        answer = await stand.ask({"input": ["a"] * 2561, "encoding_format": "base64"})

        assert (answer.status, answer.json["error"]["param"]) == (400, "input")
        assert "2560" in answer.json["error"]["message"]
        assert not stand.provider.requests
