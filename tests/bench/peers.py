"""Other gateways, from their packages, for `python -m tests.bench.gateway --against NAMES`.

    python -m tests.bench.peers FOLDER [litellm portkey ferrogw rolter]

installs them into FOLDER (needs uv and npm), which `--peers` then names. Each runs as its own
documentation says for the least work: one worker, no database, no log of requests, no retries.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.rig import MOCK_PORT, Gateway

PORT = 9203
MOCK = f"http://127.0.0.1:{MOCK_PORT}"
KEY = "sk-bench"
AUTHORIZED = (f"Authorization: Bearer {KEY}",)
OPENAI, ANTHROPIC = "bench-openai", "bench-anthropic"

LITELLM = f"""
model_list:
  - model_name: {OPENAI}
    litellm_params: {{model: openai/gpt-x, api_base: {MOCK}/v1, api_key: x}}
  - model_name: {ANTHROPIC}
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_base: {MOCK}, api_key: x}}
litellm_settings: {{num_retries: 0, callbacks: []}}
general_settings: {{master_key: {KEY}}}
"""

# One provider of that kind is pinned to its vendor unless it says otherwise.
ROLTER = f"""
[server]
host = "127.0.0.1"
port = {PORT}
[[providers]]
name = "openai"
kind = "openai_compatible"
api_base = "{MOCK}"
[[providers]]
name = "anthropic"
kind = "anthropic"
api_base = "{MOCK}"
api_key_env = "ANTHROPIC_API_KEY"
allow_custom_api_base = true
[[routes]]
model = "{OPENAI}"
strategy = "round_robin"
[[routes.targets]]
provider = "openai"
model = "gpt-x"
[[routes]]
model = "{ANTHROPIC}"
strategy = "round_robin"
[[routes.targets]]
provider = "anthropic"
model = "claude-sonnet-4-5"
"""

FERROGW = """
strategy: {mode: fallback}
targets:
  - virtual_key: openai
  - virtual_key: anthropic
"""


def _litellm(folder: Path, config: Path) -> Gateway:
    config.write_text(LITELLM)
    return Gateway(
        name="litellm",
        command=f"{folder}/bin/litellm --config {config} --host 127.0.0.1 --port {PORT}",
        port=PORT,
        headers=AUTHORIZED,
        model=OPENAI,
        anthropic_model=ANTHROPIC,
        env={"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"},
    )


def _portkey(folder: Path, _config: Path) -> Gateway:
    server = f"{folder}/node_modules/@portkey-ai/gateway/build/start-server.js"
    return Gateway(
        name="portkey",
        command=f"node {server} --port={PORT} --headless",
        port=PORT,
        headers=(
            *AUTHORIZED,
            "x-portkey-provider: openai",
            f"x-portkey-custom-host: {MOCK}/v1",
        ),
        model="gpt-x",
        env={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
    )


def _ferrogw(folder: Path, config: Path) -> Gateway:
    path = config.with_suffix(".yaml")
    path.write_text(FERROGW)
    return Gateway(
        name="ferrogw",
        command=f"{folder}/bin/ferrogw serve",
        port=PORT,
        headers=AUTHORIZED,
        model="gpt-4o",
        anthropic_model="claude-sonnet-4-5",
        env={
            "GATEWAY_CONFIG": str(path),
            "PORT": str(PORT),
            "MASTER_KEY": "fgw_bench",
            "ALLOW_UNAUTHENTICATED_PROXY": "true",
            "RATE_LIMIT_RPS": "0",
            "GOMAXPROCS": "1",
            "OPENAI_API_KEY": "x",
            "OPENAI_BASE_URL": MOCK,
            "ANTHROPIC_API_KEY": "x",
            "ANTHROPIC_BASE_URL": MOCK,
            "LOG_LEVEL": "error",
        },
    )


def _rolter(folder: Path, config: Path) -> Gateway:
    config.write_text(ROLTER)
    return Gateway(
        name="rolter",
        command=f"{folder}/bin/rolter gateway --config {config}",
        port=PORT,
        model=OPENAI,
        anthropic_model=ANTHROPIC,
        env={"ANTHROPIC_API_KEY": "x", "RUST_LOG": "error"},
    )


class Peer(NamedTuple):
    """Installation and start of a gateway."""

    run: Callable[[Path, Path], Gateway]
    """Takes the folder where it is installed, and a file for its configuration."""
    packages: Sequence[str] = ()
    """Packages of PyPI. Empty: it is a package of npm."""
    overrides: Sequence[str] = ()
    """Requirements of these packages that are overridden."""


PEERS: Mapping[str, Peer] = {
    # It asks for versions that not every index has.
    "litellm": Peer(_litellm, ["litellm[proxy]"], ["certifi", "litellm-proxy-extras"]),
    "portkey": Peer(_portkey),
    "ferrogw": Peer(_ferrogw, ["ferrogw"]),
    "rolter": Peer(_rolter, ["rolter"]),
}

# With the version that it asks for, every stream of Portkey's is answered with 500:
# https://github.com/Portkey-AI/gateway/issues/1389.
PORTKEY = """{
  "private": true,
  "dependencies": {"@portkey-ai/gateway": "1.15.2"},
  "overrides": {"@hono/node-server": "1.3.3"}
}
"""


def peers(names: Sequence[str], installed: Path, folder: Path) -> Sequence[Gateway]:
    """The gateways of these names. Raises SystemExit if one is not installed."""
    found = []
    for name in names:
        if not (installed / name).is_dir():
            raise SystemExit(f"{name} is not in {installed}: python -m tests.bench.peers")
        found.append(PEERS[name].run(installed / name, folder / f"{name}.conf"))
    return found


def install(name: str, folder: Path, uv: str) -> None:
    """Installs one, in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    peer = PEERS[name]
    if not peer.packages:
        (folder / "package.json").write_text(PORTKEY)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(npm, cwd=folder, check=True)
        return
    overrides = folder / "overrides.txt"
    overrides.write_text("\n".join(peer.overrides))
    subprocess.run([uv, "venv", "--quiet", "--allow-existing", folder], check=True)
    python = ["--python", str(folder / "bin" / "python")]
    command = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--compile-bytecode",
        *python,
        "--override",
        str(overrides),
    ]
    subprocess.run([*command, *peer.packages], check=True)


def main() -> None:
    """Installs the named gateways, or all."""
    parser = argparse.ArgumentParser(description="Install other gateways.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PEERS))
    parser.add_argument("--uv", default="uv", help="the program")
    options = parser.parse_args()
    for name in options.names or PEERS:
        print(f"Installing {name} ...", flush=True)
        install(name, options.folder.resolve() / name, options.uv)


if __name__ == "__main__":
    main()
