"""Images, from OpenAI's SDK to each provider's own form, and their memory on the way."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, BadRequestError

from tests.stand.dialect_stand import DIALECTS, MODEL, DialectStand
from tests.stand.providers.answers import Answer, text
from tests.stand.providers.provider import FakeProvider

SEEN = Answer(parts=[text("A dot.")])
LINK = "https://example.com/dot.png"
DOT = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00"
).decode()

PICTURES = 5
PICTURE_BYTES = 4 * 1024 * 1024
GROWTH_MAX = {"in-process": 6, "tcp": 12, "unix": 12}
"""How often a request may be in memory at its peak. Over gRPC both ends are counted, which
here share a process: each keeps its own copy, and one in the library's buffers."""


def messages(*urls: str) -> list[Any]:
    """A question about these pictures."""
    pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *pictures]}]


async def test_images_are_passed_in_the_providers_form(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """A link is passed on, never fetched; a data URL has the type of its bytes, not its name."""
    stand.provider.say(SEEN)

    completion = await client.chat.completions.create(
        model=MODEL, messages=messages(LINK, f"data:image/jpeg;base64,{DOT}")
    )

    assert completion.choices[0].message.content == "A dot."
    body = stand.provider.bodies[0]
    _, link, dot = (body.get("messages") or body["input"])[0]["content"]
    if stand.dialect == "openai-responses":
        assert link == {"type": "input_image", "image_url": LINK}
        assert dot == {"type": "input_image", "image_url": f"data:image/png;base64,{DOT}"}
    elif stand.dialect == "anthropic":
        assert link == {"type": "image", "source": {"type": "url", "url": LINK}}
        source = {"type": "base64", "media_type": "image/png", "data": DOT}
        assert dot == {"type": "image", "source": source}
    else:
        assert link == {"type": "image_url", "image_url": {"url": LINK}}
        inline = {"url": f"data:image/png;base64,{DOT}"}
        assert dot == {"type": "image_url", "image_url": inline}


async def test_an_invalid_image_is_refused_with_its_position(
    stand: DialectStand, client: AsyncOpenAI
) -> None:
    """The bytes are those of no image."""
    stand.provider.say(SEEN)
    page = base64.b64encode(b"<!doctype html>").decode()

    with pytest.raises(BadRequestError) as refused:
        await client.chat.completions.create(
            model=MODEL, messages=messages(f"data:image/png;base64,{page}")
        )

    assert refused.value.param == "messages[0].content[1].image_url.url"
    assert not stand.provider.requests


@dataclass(frozen=True, slots=True)
class Apart:
    """A gateway in another process."""

    base_url: str
    key: str
    pid: int

    def memory(self, what: str) -> int:
        """`VmRSS` or `VmHWM`, what is resident now or was at most, in bytes: man 5 proc."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


@asynccontextmanager
async def apart(state: Path, dialect: str, base_url: str, transport: str) -> AsyncIterator[Apart]:
    """Runs a gateway in another process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.stand.gateway_process", str(state), dialect, base_url, transport),
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Apart(**json.loads(await process.stdout.readline()), pid=process.pid)
    finally:
        process.stdin.close()
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells what a process takes")
@pytest.mark.parametrize(
    ("dialect", "transport"),
    [*((dialect, "in-process") for dialect in DIALECTS), ("openai", "tcp"), ("openai", "unix")],
)
async def test_memory_for_images_is_a_bounded_multiple(
    tmp_path: Path, dialect: str, transport: str, record_property: Any, capsys: Any
) -> None:
    """Twenty MiB of images in one request take a bounded multiple of their size."""
    data = base64.b64encode(base64.b64decode(DOT)[:30] + bytes(PICTURE_BYTES - 64)).decode()
    body = {"model": MODEL, "messages": messages(*[f"data:image/png;base64,{data}"] * PICTURES)}
    large = json.dumps(body).encode()
    small = json.dumps(body | {"messages": messages(LINK)}).encode()
    async with (
        FakeProvider(dialect) as provider,
        apart(tmp_path, dialect, provider.url, transport) as gateway,
        aiohttp.ClientSession() as http,
    ):
        provider.say(SEEN)
        headers = {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"}
        url = f"{gateway.base_url}/chat/completions"
        for sent in (small, small, large):
            before = gateway.memory("VmRSS")
            async with http.post(url, data=BytesIO(sent), headers=headers) as answer:
                assert answer.status == 200, await answer.text()
        growth = (gateway.memory("VmHWM") - before) / len(large)

    assert len(provider.requests[-1].body) > PICTURES * PICTURE_BYTES
    record_property("growth", growth)
    with capsys.disabled():
        print(  # noqa: T201 - the figure that the bound is held against
            f"\n{dialect}, {transport}: a body of {len(large) >> 20} MiB takes {growth:.1f}x"
        )
    assert growth < GROWTH_MAX[transport]
