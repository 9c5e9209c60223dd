"""A client that sends bytes as they are."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back before the connection was closed, or the answer was whole."""

    status: int
    headers: dict[str, str]
    body: bytes


async def exchange(host: str, port: int, sent: bytes, *, half_close: bool = False) -> Answer | None:
    """Sends bytes, reads one answer; None where the connection is closed without any."""
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
    """The next answer on a connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    answer = parsed(head)
    body = await reader.readexactly(int(answer.headers.get("content-length", 0)))
    return replace(answer, body=body)


def parsed(data: bytes) -> Answer:
    """The answer that `data` begins with; its body is all that follows, as it is framed."""
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Answer(int(status_line.split(" ")[1]), headers, body)
