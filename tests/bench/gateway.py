"""CPU, latency and memory of the whole gateway beside others: `make bench`.

It runs

    python -m tests.bench.gateway [--cells A,B] [--rounds N] [--seconds S] [--against NAMES|FILE]

It builds a mock of a provider and a load (tests/bench/load), serves with a fresh state, and
prints CPU time, latency and memory of: `direct`, the mock alone; `nginx`, where it is
installed, as a bare reverse proxy; `pomogator`, with keys, limits, ledger, metrics and logs;
`split`, its edge and its service in two processes on a Unix socket. The rounds of all are
interleaved: compare within one run only. Needs gcc, taskset and two cores.

`--against litellm,portkey,ferrogw,rolter` adds those of them, from the folder where
`python -m tests.bench.peers FOLDER` has installed them (`--peers FOLDER`). It may also name a JSON
file with an array of further gateways, whose fields are those of `tests.bench.rig.Gateway`. Their
providers are to be http://127.0.0.1:9100/v1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from tests.bench.peers import peers
from tests.bench.rig import CELLS, ENV, MOCK_PORT, Gateway, Result, Rig

REST_PORT, NGINX_PORT = 9201, 9202
DEFAULT_CELLS = "json_c1,json_c32,burst_c32,d5_c32,d5_c256,ant_burst_c32,img_c4"

CONFIG = f"""
# The load comes in closed loops, of which a thousand streams are one: none is too many.
[bounds]
calls_max_when_late = 2000

[billing]
unpriced = "free"

[[channels]]
name = "mock-openai"
dialect = "openai"
base_url = "http://127.0.0.1:{MOCK_PORT}/v1"
[channels.models]
"bench/openai" = "gpt-x"

[[channels]]
name = "mock-anthropic"
dialect = "anthropic"
base_url = "http://127.0.0.1:{MOCK_PORT}/v1"
[channels.models]
"bench/anthropic" = "claude-sonnet-4-5"

[[channels]]
name = "mock-responses"
dialect = "openai-responses"
base_url = "http://127.0.0.1:{MOCK_PORT}/v1"
[channels.models]
"bench/responses" = "gpt-x"
"""

NGINX = """
worker_processes 1; daemon off; pid {folder}/pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 4m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream mock {{ server 127.0.0.1:{mock}; keepalive 1024; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


def main() -> None:
    """Measures, and prints the tables."""
    options = _options()
    cells: Sequence[str] = options.cells.split(",")
    with tempfile.TemporaryDirectory(prefix="pomogator-bench-") as name:
        folder = Path(name)
        gateways = [Gateway(name="direct"), *_nginx(folder), *ours(folder)]
        if options.without_call_log:
            gateways.append(without_call_log(folder, gateways))
        gateways += _others(options.against, options.peers, folder)
        rig = Rig(folder)
        results: list[Result] = []
        for _ in range(options.rounds):
            for gateway in gateways:
                results += _round(rig, gateway, cells, options.seconds)
    _print([gateway.name for gateway in gateways], cells, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--cells", default=DEFAULT_CELLS, help=f"of {', '.join(CELLS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--against", default="", metavar="NAMES|FILE")
    parser.add_argument(
        "--without-call-log", action="store_true", help="adds `no_log`: pomogator without the log"
    )
    parser.add_argument("--peers", type=Path, default=Path(".venv/peers"), metavar="FOLDER")
    return parser.parse_args()


def _others(against: str, installed: Path, folder: Path) -> Sequence[Gateway]:
    if against.endswith(".json"):
        return msgspec.json.decode(Path(against).read_bytes(), type=list[Gateway])
    return peers(against.split(","), installed.resolve(), folder) if against else []


def _round(rig: Rig, gateway: Gateway, cells: Sequence[str], seconds: float) -> Sequence[Result]:
    results: list[Result] = []
    with rig.running(gateway) as running:
        for cell in cells:
            if not gateway.model_for(CELLS[cell]):
                continue
            result = rig.measure(running, cell, seconds)
            load = result.load
            print(
                f"{gateway.name:10} {cell:14} {result.cpu_us:9.1f} us  p50 {load.lat_us.p50:8.0f}"
                f"  failed {load.err + load.incomplete}",
                file=sys.stderr,
            )
            results.append(result)
    return results


def ours(folder: Path) -> Sequence[Gateway]:
    """The gateway in one process, and with its edge apart."""
    config, state = folder / "config.toml", folder / "state"
    config.write_text(CONFIG)
    run = f"{sys.executable} -m services"
    files = f"--config {config} --state {state}"
    # These commands also compile what the gateway will load.
    credit = f"{run} accounts create bench --credit 1000000 {files}"
    create = f"{run} keys create --account bench {files}"
    env = {**os.environ, **ENV}
    for command in (credit, create):
        made = subprocess.run(command.split(), capture_output=True, text=True, check=True, env=env)
    key = made.stdout.split()[-1]
    socket = f"unix:{folder}/service.sock"
    rest = f"--rest 127.0.0.1:{REST_PORT}"
    apart = (
        f"sh -c '{run} serve {files} --only grpc --grpc {socket} & S=$!;"
        f" {run} serve {rest} --only rest --target {socket} & E=$!;"
        f' trap "kill $S $E" TERM; wait; wait\''
    )
    commands = {
        "pomogator": f"{run} serve {files} --grpc unix:{folder}/grpc.sock {rest}",
        "split": apart,
    }
    return [
        Gateway(
            name=name,
            command=command,
            port=REST_PORT,
            headers=[f"Authorization: Bearer {key}"],
            model="bench/openai",
            anthropic_model="bench/anthropic",
            responses_model="bench/responses",
        )
        for name, command in commands.items()
    ]


def without_call_log(folder: Path, gateways: Sequence[Gateway]) -> Gateway:
    """The gateway in one process, without its call log."""
    config = folder / "no_log.toml"
    config.write_text(f"{CONFIG}\n[call_log]\nenabled = false\n")
    whole = next(one for one in gateways if one.name == "pomogator")
    command = whole.command.replace(str(folder / "config.toml"), str(config))
    return msgspec.structs.replace(whole, name="no_log", command=command)


def _nginx(folder: Path) -> Sequence[Gateway]:
    """The lower bound: proxies that pass bytes on without reading them."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
    if program is None:
        return []
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, mock=MOCK_PORT, port=NGINX_PORT))
    command = f"{program} -p {folder} -c {config}"
    return [Gateway(name="nginx", command=command, port=NGINX_PORT)]


def _print(names: Sequence[str], cells: Sequence[str], results: Sequence[Result]) -> None:
    def row(label: str, cell: str, value: Callable[[Result], float], form: str) -> None:
        columns = []
        for name in names:
            found = [value(one) for one in results if (one.gateway, one.cell) == (name, cell)]
            columns.append(format(statistics.median(found), form) if found else "-")
        print(f"| {label} | {' | '.join(columns)} |")

    print(f"| median of the rounds | {' | '.join(names)} |")
    print(f"|---|{'--:|' * len(names)}")
    for cell in cells:
        unit = "chunk" if CELLS[cell].streamed else "request"
        row(f"`{cell}`: CPU µs per {unit}", cell, lambda one: one.cpu_us, ".1f")
    for cell in cells:
        row(f"`{cell}`: p50 ms", cell, lambda one: one.load.lat_us.p50 / 1000, ".2f")
        row(f"`{cell}`: p99 ms", cell, lambda one: one.load.lat_us.p99 / 1000, ".2f")
        alone = [one.load.lat_us for one in results if (one.gateway, one.cell) == ("direct", cell)]
        if alone:
            p50 = statistics.median(one.p50 for one in alone)
            p99 = statistics.median(one.p99 for one in alone)
            row(f"`{cell}`: added p50 ms", cell, _over(p50, lambda one: one.load.lat_us.p50), ".2f")
            row(f"`{cell}`: added p99 ms", cell, _over(p99, lambda one: one.load.lat_us.p99), ".2f")
        if CELLS[cell].streamed:
            row(
                f"`{cell}`: first event p50 ms",
                cell,
                lambda one: one.load.ttft_us.p50 / 1000,
                ".2f",
            )
    row("idle MB", cells[0], lambda one: one.idle_mb, ".0f")
    row("MB after all of it", cells[-1], lambda one: one.rss_mb, ".0f")
    row("start s", cells[0], lambda one: one.start_s, ".2f")
    failed = sum(one.load.err + one.load.incomplete for one in results)
    print(f"\nRequests that failed: {failed}.")


def _over(least_us: float, value: Callable[[Result], float]) -> Callable[[Result], float]:
    """Added latency in milliseconds, compared with no gateway."""
    return lambda one: (value(one) - least_us) / 1000


if __name__ == "__main__":
    main()
