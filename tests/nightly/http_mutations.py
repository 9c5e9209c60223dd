"""Changes of HTTP requests: of paths, queries, headers, forms, bodies and their framing."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlencode

from tests.nightly.http_targets import HttpRequest
from tests.nightly.odd_http import (
    FRAMINGS,
    HEADERS,
    METHODS,
    PATHS,
    PIECES,
    QUERIES,
    TARGETS,
    TEXTS,
    TYPES,
    VERSIONS,
)
from tests.stand.json_mutations import json_text, mutated


class Change(Enum):
    """A part of a request that is changed."""

    PATH = auto()
    QUERY = auto()
    HEADERS = auto()
    CREDENTIAL = auto()
    TYPE = auto()
    BODY = auto()
    BYTES = auto()
    FRAMING = auto()
    """The request may be no HTTP any more, and its connection close without an answer."""


WEIGHTS = {
    Change.PATH: 2,
    Change.QUERY: 4,
    Change.HEADERS: 4,
    Change.CREDENTIAL: 1,
    Change.TYPE: 1,
    Change.BODY: 8,
    Change.BYTES: 2,
    Change.FRAMING: 1,
}

CHUNKED_SHARE, BYTES_SHARE = 0.1, 0.3
NO_URL = b'\xff\xc3\\"<>^`{|}#'
"""Bytes that no URL has."""


@dataclass(frozen=True, slots=True)
class Written:
    """A request as bytes."""

    data: bytes
    method: str
    changes: frozenset[Change]


def change(request: HttpRequest, chance: random.Random) -> frozenset[Change]:
    """Change parts of a request, and return which."""
    count = chance.choice((0, 1, 1, 1, 2, 3))
    chosen = frozenset(chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count))
    for each in sorted(chosen, key=lambda change: change.value):
        if each is Change.HEADERS:
            for _ in range(chance.choice((1, 1, 2, 5))):
                _add_header(request, chance)
        elif each is Change.CREDENTIAL:
            _change_credential(request, chance)
        elif each is Change.TYPE:
            _replace(request, "Content-Type", chance.choice(TYPES))
        elif each is Change.BODY:
            _change_body(request, chance)
        elif each is Change.BYTES:
            request.body = _cut(request.body, chance)
    return chosen


def written(request: HttpRequest, changes: frozenset[Change], chance: random.Random) -> Written:
    """Return the bytes of a request, with changes that no library would write."""
    method, target = _target(request, changes, chance)
    headers = [("Host", b"127.0.0.1:80"), *request.headers]
    body = request.body
    if chance.random() < CHUNKED_SHARE and method != "HEAD":
        headers.append(("Transfer-Encoding", b"chunked"))
        body = _chunked(body, chance)
    elif body or method in {"POST", "PATCH"}:
        headers.append(("Content-Length", b"%d" % len(body)))
    version = b"HTTP/1.1"
    if Change.FRAMING in changes:
        for _ in range(chance.choice((1, 1, 2))):
            headers.insert(chance.randrange(len(headers) + 1), chance.choice(FRAMINGS))
        version = chance.choice(VERSIONS)
        target = chance.choice((target, target, target, chance.choice(TARGETS)))
    lines = [method.encode() + b" " + target + b" " + version]
    lines += [name.encode() + b": " + value for name, value in headers]
    data = b"\r\n".join([*lines, b"", b""]) + body
    if Change.FRAMING in changes and chance.random() < BYTES_SHARE:
        data = _cut(data, chance)
    if any(byte in target for byte in NO_URL):
        changes = changes | {Change.FRAMING}
    return Written(data, method, changes)


def _target(
    request: HttpRequest, changes: frozenset[Change], chance: random.Random
) -> tuple[str, bytes]:
    """Return the method and the target of a request."""
    method, path, query = request.method, request.path.encode(), request.query.encode()
    if Change.PATH in changes:
        at = chance.randrange(len(path) + 1)
        path = path[:at] + chance.choice(PATHS) + path[at:]
        method = chance.choice((method, method, chance.choice(METHODS)))
    if Change.QUERY in changes:
        query = _changed_query(query, chance)
    return method, path + (b"?" + query if query else b"")


def _chunked(body: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(body) + 1)
    parts = [part for part in (body[:at], body[at:]) if part]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _changed_query(query: bytes, chance: random.Random) -> bytes:
    pairs = query.split(b"&") if query else []
    kind = chance.randrange(5)
    if kind == 0 and pairs:
        pairs.append(chance.choice(pairs))
    elif kind == 1 and pairs:
        at = chance.randrange(len(pairs))
        name = pairs[at].partition(b"=")[0]
        pairs[at] = name + b"=" + chance.choice((b"%00", b"%ff", b"", b"1e999", b"-1", b"a" * 4000))
    elif kind == 2 and pairs:
        at = chance.randrange(len(pairs))
        pairs[at] = chance.choice((b"a.", b"x", b"")) + pairs[at]
    elif kind == 3 and query:
        return _cut(query, chance).translate(None, b" \r\n\0")
    else:
        pairs.append(chance.choice(QUERIES))
    return b"&".join(pairs)


def _add_header(request: HttpRequest, chance: random.Random) -> None:
    name = chance.choice(list(HEADERS))
    values = HEADERS[name] if chance.random() < 0.6 else TEXTS
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        request.headers.insert(
            chance.randrange(len(request.headers) + 1), (name, chance.choice(values))
        )


def _change_credential(request: HttpRequest, chance: random.Random) -> None:
    names = ("Authorization", "x-api-key", "Cookie")
    at = [index for index, (name, _) in enumerate(request.headers) if name in names]
    if not at:
        return
    index = chance.choice(at)
    name, value = request.headers[index]
    changed = chance.choice(
        (b"", b"Bearer", b"Bearer ", b"Basic YTpi", value + b"a", value[:-1], value * 2, b"\xff")
    )
    kind = chance.randrange(3)
    if kind == 0:
        request.headers[index] = (name, changed)
    elif kind == 1:
        request.headers.append((chance.choice(names), changed))
    else:
        del request.headers[index]


def _replace(request: HttpRequest, name: str, value: bytes) -> None:
    request.headers = [pair for pair in request.headers if pair[0] != name]
    request.headers.append((name, value))


def _change_body(request: HttpRequest, chance: random.Random) -> None:
    if request.form is not None:
        pairs = list(request.form)
        for _ in range(chance.randint(1, 3)):
            pairs.insert(
                chance.randrange(len(pairs) + 1),
                (chance.choice(pairs)[0], chance.choice(("", "\0", "\ud800", "x" * 9000, "-1"))),
            )
        request.body = urlencode(pairs, errors="surrogatepass").encode()
    elif request.value is not None:
        request.body = json_text(mutated(request.value, chance))


def _cut(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few that are removed, doubled or others."""
    for _ in range(chance.randint(1, 3)):
        at, size = chance.randrange(len(data) + 1), chance.randint(0, 30)
        end = min(len(data), at + size)
        middle = chance.choice((data[at:end] * 2, *PIECES))
        data = data[:at] + middle + data[chance.choice((at, end)) :]
    return data
