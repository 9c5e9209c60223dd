"""Measures a gateway from outside: processes, their CPU time and memory, and load on them.

The gateway and all that it starts are pinned to one core, the mock of a provider and the
load to another. CPU time is user + system time of the whole process tree from /proc, over
the requests that were completed or the events that were received. It hardly depends on
what else the machine does; latencies and rates do.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

MOCK_PORT = 9100
GATEWAY_CORE, LOAD_CORE = "0", "1"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SOURCES = Path(__file__).parent / "load"
PROGRAMS = ("mockup", "gwload")
START_S = 240.0
WARM_UP_S = 0.7
ENV: Mapping[str, str] = {"PYTHONDONTWRITEBYTECODE": ""}
"""Programs in Python start from compiled modules, as those of packages and images do."""
GRACE_S = 60
MESSAGES_PATH, RESPONSES_PATH = "/v1/messages", "/v1/responses"
SENTENCE = "You are a careful assistant. Answer in one short paragraph. "


class Cell(NamedTuple):
    """Cell of the bench: a kind of requests."""

    connections: int
    """Number of concurrent requests."""
    streamed: bool = False
    """Whether events are counted in place of requests."""
    delay_us: int = 0
    """The mock's pause between two events; 0: all at once."""
    picture: bool = False
    """Whether the request has a picture of 1 MB."""
    anthropic: bool = False
    """Whether the provider speaks Anthropic's dialect."""
    responses: bool = False
    """Whether the provider speaks OpenAI's Responses."""
    raw: bool = False
    """Whether the client speaks that dialect, too: both bodies pass as they are."""
    sentences: int = 16
    """Length of the prompt, in sentences of 60 bytes."""


CELLS: Mapping[str, Cell] = {
    "json_c1": Cell(1),
    "json_c32": Cell(32),
    "burst_c1": Cell(1, streamed=True),
    "burst_c32": Cell(32, streamed=True),
    "burst_c256": Cell(256, streamed=True),
    "d5_c1": Cell(1, streamed=True, delay_us=5000),
    "d5_c32": Cell(32, streamed=True, delay_us=5000),
    "d5_c256": Cell(256, streamed=True, delay_us=5000),
    "d50_c256": Cell(256, streamed=True, delay_us=50_000),
    "d50_c1000": Cell(1000, streamed=True, delay_us=50_000),
    "ant_burst_c1": Cell(1, streamed=True, anthropic=True),
    "ant_burst_c32": Cell(32, streamed=True, anthropic=True),
    "ant_d5_c32": Cell(32, streamed=True, delay_us=5000, anthropic=True),
    "ant_json_c1": Cell(1, anthropic=True),
    "responses_json_c1": Cell(1, responses=True),
    "raw_json_c1": Cell(1, anthropic=True, raw=True),
    "raw_responses_c1": Cell(1, responses=True, raw=True),
    "json_90k_c1": Cell(1, sentences=1500),
    "raw_json_90k_c1": Cell(1, anthropic=True, raw=True, sentences=1500),
    "raw_responses_90k_c1": Cell(1, responses=True, raw=True, sentences=1500),
    "raw_burst_c1": Cell(1, streamed=True, anthropic=True, raw=True),
    "img_c1": Cell(1, picture=True),
    "img_c4": Cell(4, picture=True),
}


class Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """Gateway to measure. Its provider is the mock at `MOCK_PORT`."""

    name: str
    command: str = ""
    """Command that starts it. Empty: it is the mock itself, without a gateway."""
    port: int = MOCK_PORT
    path: str = "/v1/chat/completions"
    headers: Sequence[str] = ()
    """Header with its key, such as `Authorization: Bearer …`."""
    model: str = "mock"
    """The public name of the mock's model that speaks as OpenAI."""
    anthropic_model: str = ""
    """Public name of the model whose channel speaks as Anthropic. Empty: it has no such model."""
    responses_model: str = ""
    """Public name of the model whose channel speaks Responses. Empty: it has no such model."""
    env: Mapping[str, str] = {}
    cores: str = GATEWAY_CORE
    """Cores that it may use, as `taskset` takes them."""

    def model_for(self, work: Cell) -> str:
        """The public name of the model for a kind of work. Empty: it has no such model."""
        if work.responses:
            return self.responses_model
        return self.anthropic_model if work.anthropic else self.model


class Quantiles(msgspec.Struct):
    """Microseconds."""

    p50: float
    p99: float


class Load(msgspec.Struct):
    """Report of gwload."""

    ok: int
    err: int
    incomplete: int
    total_events: int
    rps: float
    lat_us: Quantiles
    ttft_us: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Result of one round: one gateway, one cell."""

    gateway: str
    cell: str
    cpu_us: float
    """CPU microseconds per event of a stream, or else per request."""
    load: Load
    rss_mb: float
    """Memory of the process tree, after the work."""
    idle_mb: float
    """Memory of the process tree, a second after its start."""
    start_s: float
    """Time from its start to its first answer."""


class Rig:
    """Runs the programs. What it builds and writes is in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in PROGRAMS:
            source, program = SOURCES / f"{name}.c", folder / name
            subprocess.run(["gcc", "-O2", "-w", "-o", program, source, "-lm"], check=True)  # noqa: S607

    @contextmanager
    def running(self, gateway: Gateway) -> Iterator[Running]:
        """The gateway, once it has answered."""
        if not gateway.command:
            yield Running(gateway, 0, 0.0, 0.0)
            return
        log = self._folder / f"{gateway.name}.log"
        with self._mock(Cell(1)), log.open("w") as out:
            began = time.monotonic()
            command = ["taskset", "-c", gateway.cores, *shlex.split(gateway.command)]
            env = {**os.environ, **ENV, **gateway.env}
            process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
            try:
                _await_answer(gateway, process, self._body(gateway, Cell(1)), began + START_S)
                start_s = time.monotonic() - began
                time.sleep(1)
                idle_mb = rss_mb(process.pid)
            except BaseException:
                _stop(process)
                raise
        try:
            yield Running(gateway, process.pid, idle_mb, start_s)
        finally:
            _stop(process)

    def measure(self, running: Running, cell: str, seconds: float) -> Result:
        """Offers load for a time, and returns the result."""
        work, gateway = CELLS[cell], running.gateway
        body = self._body(gateway, work)
        with self._mock(work):
            self._load(gateway, work, body, WARM_UP_S)
            before = cpu_s(running.pid)
            load = self._load(gateway, work, body, seconds)
            cpu = cpu_s(running.pid) - before
        units = load.total_events if work.streamed else load.ok
        return Result(
            gateway=gateway.name,
            cell=cell,
            cpu_us=cpu / max(1, units) * 1e6,
            load=load,
            rss_mb=rss_mb(running.pid),
            idle_mb=running.idle_mb,
            start_s=running.start_s,
        )

    def _mock(self, work: Cell) -> AbstractContextManager[None]:
        return self.provider("-d", work.delay_us)

    @contextmanager
    def provider(self, *options: object) -> Iterator[None]:
        """The mock of a provider, at `MOCK_PORT`; its source explains its options."""
        command = ["taskset", "-c", LOAD_CORE, str(self._folder / "mockup")]
        command += ["-p", str(MOCK_PORT), *map(str, options)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(0.3)
        try:
            yield
        finally:
            _stop(process)

    def _load(self, gateway: Gateway, work: Cell, body: Path, seconds: float) -> Load:
        command = ["taskset", "-c", LOAD_CORE, str(self._folder / "gwload")]
        path = gateway.path
        if work.raw:
            path = RESPONSES_PATH if work.responses else MESSAGES_PATH
        command += ["-u", f"x:{gateway.port}", "-P", path, "-b", str(body)]
        command += ["-c", str(work.connections), "-t", str(seconds), "-g", str(GRACE_S)]
        command += ["-s"] if work.streamed else []
        for header in gateway.headers:
            command += ["-H", header]
        done = subprocess.run(command, capture_output=True, check=True)
        return msgspec.json.decode(done.stdout, type=Load)

    def _body(self, gateway: Gateway, work: Cell) -> Path:
        content: object = SENTENCE * work.sentences
        if work.picture:
            url = "data:image/png;base64,iVBORw0KGgo" + "A" * ((1 << 20) + 1)
            content = [
                {"type": "text", "text": "What is in the picture?"},
                {"type": "image_url", "image_url": {"url": url}},
            ]
        messages = [{"role": "user", "content": content}]
        body: dict[str, object] = {"model": gateway.model_for(work)}
        if work.raw and work.responses:
            body |= {"input": messages, "max_output_tokens": 256, "store": False}
        else:
            body |= {"messages": messages, "max_tokens": 256}
        body |= {"temperature": 0.5}
        if work.streamed:
            body |= {"stream": True}
            body |= {} if work.raw else {"stream_options": {"include_usage": True}}
        path = self._folder / "body.json"
        path.write_bytes(msgspec.json.encode(body))
        return path


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that has answered."""

    gateway: Gateway
    pid: int
    """ID of its process. 0: there is no process."""
    idle_mb: float
    start_s: float


def cpu_s(pid: int) -> float:
    """CPU time of the process and its descendants."""
    return sum(int(field) for one in _tree(pid) for field in _stat(one)[11:13]) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Memory of the process and its descendants."""
    pages = sum(int(_stat(one)[21]) for one in _tree(pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _tree(pid: int) -> list[int]:
    if not pid:
        return []
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        child = int(folder.name)
        children.setdefault(int(_stat(child)[1]), []).append(child)
    found = [pid]
    for one in found:
        found += children.get(one, ())
    return found


def _stat(pid: int) -> Sequence[str]:
    """The fields of /proc/PID/stat behind the name, or zeros where it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["0"] * 50


def _await_answer(
    gateway: Gateway, process: subprocess.Popen[bytes], body: Path, deadline: float
) -> None:
    url = f"http://127.0.0.1:{gateway.port}{gateway.path}"
    headers = dict(header.split(": ", 1) for header in gateway.headers)
    headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=body.read_bytes(), headers=headers)
    last: object = None
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            last = (error.code, error.read()[:200])
        except OSError as error:
            last = error
        time.sleep(0.02)
    raise SystemExit(f"{gateway.name} does not answer: {last}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
