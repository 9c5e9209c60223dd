"""Fast path: ordinary requests with a body bypass aiohttp's parser and router.

An ordinary request has the form that clients send in practice: method and path of an endpoint,
HTTP/1.1, a head that arrives whole, plain headers, one Content-Length, JSON. The path may have a
query, which no endpoint reads, such as the `?beta=true` of Anthropic's SDK. A request that differs,
even in a valid way (chunked body, `Expect`, another version, space at the end of a line), goes to
aiohttp unchanged. So the fast path never decides what is valid HTTP, and its reader and aiohttp's
cannot disagree about where an ordinary request ends.

`python -m tests.bench.edge` measures both paths. On a busy machine a whole answer cost the edge
52 µs of CPU on the fast path and 118 through aiohttp, a refusal 48 and 110.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from multidict import CIMultiDict

from gateway.errors import ApiError
from gateway.http.auth_throttle import AuthThrottle
from gateway.http.body import is_json
from gateway.http.body_admission import BodyAdmission
from gateway.http.call_options import SentHeaders
from gateway.http.credentials import api_key, unchecked_key
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import Exchange
from gateway.telemetry.request_observer import RequestObserver
from services.common.request_headers import sent_request_id

if TYPE_CHECKING:
    from gateway.telemetry.request_spans import RequestSpan

HEAD_BYTES_MAX = 8190
"""Maximum size of a head. aiohttp applies the same limit to each line."""

# Names as in RFC 9110, section 5.6.2; values only in printable ASCII. `++` and `*+` never
# backtrack: every byte is read once.
_FIELDS = rb"((?:[!#-'*+\-.0-9A-Z^-z|~]++:[\t\x20-\x7e]*+\r\n)++)\r\n"
# A slash at the end, as in `without_slash`; and a query, by RFC 3986, section 3.4.
_QUERY = rb"/?+(?:\?[\w!$%&'()*+,\-./:;=?@~]*+)?+"
_FIELD = re.compile(r"([^:]++):[\t ]*+([^\r]*+)\r\n")
_LENGTH = re.compile(rb"[1-9][0-9]{0,9}")
_LENGTH_NAME = b"\r\ncontent-length:"
_FIELDS_MAX = 100
_REQUIRED_NAMES = frozenset({"host", "content-length"})
# A request with one of these is not ordinary: aiohttp may refuse it, or it is more than one body
# and one answer.
_EXCLUDED_NAMES = frozenset(
    {"transfer-encoding", "content-encoding", "expect", "upgrade"}
    | {"proxy-connection", "sec-websocket-key1"}
)


class RequestHead(SentHeaders, kw_only=True):
    """The head of an ordinary request.

    Most clients send the same head in all requests of a connection, but for the length of the body.
    So a connection keeps the last head, and what was read from it.
    """

    headers: CIMultiDict[str]
    endpoint: Endpoint
    request_id: str
    """The client's id of its request; empty: none, or it is not fit for logs."""
    before_length: bytes
    """The head's bytes before the digits of `Content-Length`."""
    after_length: bytes
    """The head's bytes after these digits."""
    body_start: int
    body_end: int
    """Offset at which the next request may begin."""


class FastPathExchange(Exchange, eq=False, kw_only=True):
    """Exchange with a client on the fast path, whose connection releases `memory`."""

    sent: RequestHead
    target: Endpoint
    span: RequestSpan | None = None


class FastPath:
    """Reader of the heads of ordinary requests, with what their connections need to answer them."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        throttle: AuthThrottle,
        body_bytes_max: int,
        observer: RequestObserver,
        admission: BodyAdmission,
    ) -> None:
        self.observer, self.admission = observer, admission
        self.throttle = throttle
        self._body_bytes_max = body_bytes_max
        self._endpoints = {
            f"{endpoint.method} {endpoint.path}".encode(): (
                endpoint,
                frozenset(name.lower() for name in endpoint.credential_headers),
            )
            for endpoint in endpoints
        }
        targets = b"|".join(re.escape(target) for target in self._endpoints)
        self._head = re.compile(rb"(%b)%b HTTP/1\.1\r\n%b" % (targets, _QUERY, _FIELDS))

    def read(self, data: bytes, last: RequestHead | None = None) -> RequestHead | None:
        """Return the head of the ordinary request at the start of `data`; None for any other.

        It is `last`, the one before on the connection, where they differ in the length at most.
        """
        return (last and self._repeated(last, data)) or self._read(data)

    def _repeated(self, last: RequestHead, data: bytes) -> RequestHead | None:
        if not data.startswith(last.before_length):
            return None
        length = _LENGTH.match(data, len(last.before_length))
        if length is None or not data.startswith(last.after_length, length.end()):
            return None
        size = int(length[0])
        if size > self._body_bytes_max:
            return None
        last.body_start = start = length.end() + len(last.after_length)
        last.body_end = start + size
        last.headers["Content-Length"] = length[0].decode()
        return last

    def _read(self, data: bytes) -> RequestHead | None:
        match = self._head.match(data, 0, HEAD_BYTES_MAX)
        if match is None:
            return None
        start = match.end()
        if data.find(b" \r", 0, start) >= 0 or data.find(b"\t\r", 0, start) >= 0:
            return None
        endpoint, credential_names = self._endpoints[match[1]]
        fields = _FIELD.findall(match[2].decode("ascii"))
        names = {name.lower() for name, _ in fields}
        plain = (
            # Repeated names are errors or not, by name: aiohttp decides.
            len(names) == len(fields) <= _FIELDS_MAX
            and names >= _REQUIRED_NAMES
            and not names.isdisjoint(credential_names)
            and names.isdisjoint(_EXCLUDED_NAMES)
        )
        if not plain:
            return None
        headers = CIMultiDict(fields)
        keeps_alive = "connection" not in names or headers["Connection"].lower() == "keep-alive"
        length = headers["Content-Length"].encode()
        if not (keeps_alive and _LENGTH.fullmatch(length) and is_json(headers)):
            return None
        if int(length) > self._body_bytes_max:
            return None
        digits = data.index(length, data[:start].lower().index(_LENGTH_NAME) + len(_LENGTH_NAME))
        return RequestHead(
            headers=headers,
            caller=unchecked_key(headers, endpoint.credential_headers),
            endpoint=endpoint,
            request_id=sent_request_id(headers.get("X-Request-Id")),
            before_length=data[:digits],
            after_length=data[digits + len(length) : start],
            body_start=start,
            body_end=start + int(length),
        )

    def may_wait(self, head: RequestHead) -> bool:
        """Whether the rest of the body may be waited for: the key is fit for a body so large."""
        try:
            api_key(head.headers, head.endpoint.credential_headers)
        except ApiError:
            return False
        return not self.admission.needs_key(head.body_end - head.body_start, head.caller)
