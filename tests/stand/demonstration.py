"""`pomogator demo` as a process, and the command that it prints."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.stand.process import Process


@asynccontextmanager
async def running_demo(
    program: Sequence[str | Path], env: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Process, Path]]:
    """The process, once it has printed its command, and the folder of its temporary files."""
    listeners = ("--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
    # Not below the test's folder: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        demo = Process(*program, *listeners, env={**(env or {}), "TMPDIR": folder})
        try:
            await demo.spawn()
            await demo.while_running(demo.printed("}]}'"))
            yield demo, Path(folder)
        finally:
            # Not SIGKILL: a program that starts it, such as uvx, passes this on.
            await demo.stop(signal.SIGTERM)


async def streamed_text(demo: Process) -> str:
    """The text that the printed curl command streams."""
    command = demo.stdout[demo.stdout.index("curl ") :]
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    events = out.decode().strip().split("\n\n")
    assert events.pop() == "data: [DONE]", out.decode()
    choices = [json.loads(event.removeprefix("data: "))["choices"] for event in events]
    return "".join(each[0]["delta"].get("content") or "" for each in choices if each)
