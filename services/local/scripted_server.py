"""Program of the scripted model's process: `scripted_server.py --alias NAME`.

It serves OpenAI's `/v1/chat/completions` on loopback and answers every request with one text, of
which each word counts as a token. It starts and ends as `model_server.py` does. It shows how the
gateway works where no model is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

TEXT = (
    "This is no language model but a script, which answers every request with this text. "
    "The request went through the gateway: its key was checked, its channel was chosen, its "
    "tokens were counted and charged."
)
WORDS = tuple(word if number == 0 else f" {word}" for number, word in enumerate(TEXT.split()))
WORD_INTERVAL_S = 0.02
"""Time between two words of a stream, so that a reader sees it flow."""

_numbers = itertools.count(1)


async def main() -> None:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="scripted_server")
    parser.add_argument("--alias", required=True, help="name of the model")
    parser.add_argument("--port", type=int, default=0, help="port; 0 selects a free one")
    options = parser.parse_args()
    app = web.Application()
    app.router.add_get("/health", _health)
    app.router.add_post("/v1/chat/completions", _complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    _, port = runner.addresses[0][:2]
    sys.stdout.write(json.dumps({"address": f"http://127.0.0.1:{port}"}) + "\n")
    sys.stdout.flush()
    await _stdin_closed()
    await runner.cleanup()


async def _stdin_closed() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _health(_request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _complete(request: web.Request) -> web.StreamResponse:
    asked = await request.json()
    most = asked.get("max_completion_tokens") or asked.get("max_tokens") or len(WORDS)
    words = WORDS[:most]
    common = {
        "id": f"chatcmpl-{next(_numbers)}",
        "created": int(time.time()),
        "model": asked.get("model"),
    }
    ended = {"finish_reason": "stop" if len(words) == len(WORDS) else "length", "index": 0}
    usage = _usage(asked, words)
    if asked.get("stream"):
        return await _stream(
            request, {**common, "object": "chat.completion.chunk"}, words, ended, usage
        )
    message = {"role": "assistant", "content": "".join(words)}
    choices = [{**ended, "message": message}]
    return web.json_response(
        {**common, "object": "chat.completion", "choices": choices, "usage": usage}
    )


def _usage(asked: Any, words: Sequence[str]) -> dict[str, int]:
    prompt = sum(len(str(message.get("content")).split()) for message in asked["messages"])
    return {
        "prompt_tokens": prompt,
        "completion_tokens": len(words),
        "total_tokens": prompt + len(words),
    }


async def _stream(
    request: web.Request,
    common: dict[str, Any],
    words: Sequence[str],
    ended: dict[str, Any],
    usage: dict[str, int],
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for word in words:
        choice = {"index": 0, "delta": {"role": "assistant", "content": word}}
        await response.write(_event({**common, "choices": [choice]}))
        await asyncio.sleep(WORD_INTERVAL_S)
    await response.write(_event({**common, "choices": [{**ended, "delta": {}}]}))
    await response.write(_event({**common, "choices": [], "usage": usage}))
    await response.write(b"data: [DONE]\n\n")
    return response


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


if __name__ == "__main__":
    asyncio.run(main())
