"""HTTP client that sends raw bytes, and requests for it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

from tests.gateway.conftest import KEY

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
BODY = b'{"model":"m","messages":[]}'
GOOD = (
    POST + b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


async def exchange(host: str, port: int, sent: bytes, *, half_close: bool = False) -> Answer | None:
    """Send bytes and read one answer; None where the connection closes without any."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(sent)
        if half_close:
            writer.write_eof()
        async with asyncio.timeout(10):
            return await read_answer(reader)
    except ConnectionError:
        return None
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> Answer | None:
    """Read the next answer on a connection; None where it closes without any."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    answer = parsed(head)
    body = await reader.readexactly(int(answer.headers.get("content-length", 0)))
    return replace(answer, body=body)


def parsed(data: bytes) -> Answer:
    """Parse an answer whose body is all of the rest, with its framing."""
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Answer(int(status_line.split(" ")[1]), headers, body)


def assert_error(answer: Answer | None, *statuses: int) -> None:
    """Check that the answer is an error in the API's form."""
    assert answer is not None
    assert answer.status in statuses
    assert json.loads(answer.body)["error"].keys() == {"message", "type", "param", "code"}
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"].startswith("application/json")
    assert "aiohttp" not in answer.headers.get("server", "")
