"""HTTP client that sends any bytes, and reads one answer of any framing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes
    is_whole: bool
    """Whether it ends as its framing says."""


async def exchange(host: str, port: int, data: bytes, method: str) -> Answer | None:
    """Send bytes, then nothing more, and read an answer; None where the connection closes first."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        return await _read(reader, method)
    except ConnectionError:
        return None
    finally:
        writer.close()


async def _read(reader: asyncio.StreamReader, method: str) -> Answer | None:
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split(" ")[1])
        if status >= 200:
            break
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    if method == "HEAD" or status in {204, 304}:
        return Answer(status, headers, b"", is_whole=True)
    pieces: list[bytes] = []
    whole = True
    try:
        if "content-length" in headers:
            pieces.append(await reader.readexactly(int(headers["content-length"])))
        elif headers.get("transfer-encoding") == "chunked":
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                pieces.append(await reader.readexactly(size))
                await reader.readexactly(2)
            await reader.readuntil(b"\r\n")
        else:
            pieces.append(await reader.read())
    except asyncio.IncompleteReadError as error:
        pieces.append(error.partial)
        whole = False
    return Answer(status, headers, b"".join(pieces), is_whole=whole)
