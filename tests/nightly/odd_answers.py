"""Odd and hostile parts of HTTP answers: statuses, headers and pieces of bodies."""

from __future__ import annotations

STATUSES = (
    *(
        200,
        201,
        202,
        204,
        205,
        206,
        226,
        299,
        300,
        301,
        304,
        307,
        400,
        402,
        404,
        405,
        408,
        409,
        410,
    ),
    *(
        411,
        413,
        415,
        418,
        422,
        425,
        429,
        431,
        451,
        499,
        500,
        501,
        502,
        503,
        504,
        520,
        529,
        599,
        999,
    ),
)
STATUS_LINES = (
    *(b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"http/1.1 200 OK", b"HTTP/2 200 OK"),
    *(
        b"HTTP/1.1 0200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 abc OK",
        b"HTTP/1.1 200 \xff",
        b"ICY 200 OK",
    ),
    *(b"HTTP/1.1 600 X", b"HTTP/1.1 000 X", b"HTTP/1.1 -200 X", b"", b"\xff", b"HTTP/1.1  200 OK"),
)
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n",
    b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n",
)
HARMLESS = (
    *(b"X-A: b", b"Set-Cookie: a=b; Path=/", b"Server: \xff\xfe", b"X-Empty:", b"Retry-After: 0"),
    *(
        b"Retry-After: never",
        b"retry-after-ms: 1",
        b"X-Long: " + b"a" * 4000,
        b"Date: now",
        b"ETag: a",
    ),
    *(
        b"x-request-id: req_1",
        b"request-id: \xff",
        b"Keep-Alive: timeout=0",
        b"Vary: *",
        b"Age: -1",
    ),
    *(
        b"x-ratelimit-remaining-requests: NaN",
        b"anthropic-ratelimit-tokens-reset: x",
        b"Via: 1.1 a",
    ),
    *(b"openai-processing-ms: -1", b"Trailer: X-T", b"X-Tab:\ta\t", b"Connection: keep-alive"),
)
HARMFUL = (
    *(b"Content-Length: 1", b"Content-Length: -1", b"Content-Length: x", b"Content-Length: 5, 6"),
    *(b"Content-Length: 99999999999999999999", b"Transfer-Encoding: gzip", b"Transfer-Encoding: x"),
    *(b"Content-Encoding: br", b"Content-Encoding: gzip", b"Content-Encoding: \xff", b"X : a"),
    *(
        b"X-A: b\r\n folded",
        b"X\x00: a",
        b"X: a\0b",
        b": a",
        b"no colon",
        b"X-Huge: " + b"a" * 99_000,
    ),
    *(b"Content-Range: bytes 0-1/9", b"Upgrade: h2c", b"Location: http://[", b"Connection: close"),
)
TYPES = (
    *(b"application/json", b"text/event-stream", b"text/event-stream; charset=utf-8", b"text/html"),
    *(b"application/json; charset=latin-1", b"", b"\xff", b"application/octet-stream", b"a" * 3000),
    *(b"TEXT/EVENT-STREAM", b"application/x-ndjson", b"text/event-stream, application/json"),
)
PIECES = (
    *(
        b"",
        b"\n",
        b"\n\n",
        b"\r\n\r\n",
        b"\r",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"data: ",
        b"data: {}\n\n",
    ),
    *(
        b"data: [DONE]\n\n",
        b"event: error\ndata: {}\n\n",
        b": ping\n\n",
        b"data: null\n\n",
        b'"',
        b"}",
    ),
    *(
        b'data: {"error":{"message":"no"}}\n\n',
        b"[" * 3000,
        b"id: 1\nretry: 5\n\n",
        b"\xf0\x9f",
        b"\\ud800",
    ),
)
