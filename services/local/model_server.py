"""The process behind a local model: `model_server.py WEIGHTS --alias NAME`.

llama.cpp's own HTTP server, on loopback. It answers `/v1/chat/completions` and
`/v1/messages`. Once the model is loaded it writes one line of JSON to stdout,
`{"address": "http://127.0.0.1:PORT"}`, and ends when its stdin does. It is a process
of its own, since native threads that compute do not belong beside an event loop.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys

import xllamacpp

# Of all slots together; a slot has its quarter, and a conversation that outgrows it ends.
CONTEXT_TOKENS = 8192
SLOTS = 4
# The default, 8 GiB of remembered prompts, is no guest's manner.
PROMPT_CACHE_MIB = 256

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until stdin ends."""
    parser = argparse.ArgumentParser(prog="model_server")
    parser.add_argument("weights", help="a GGUF file")
    parser.add_argument("--alias", required=True, help="the model's name")
    parser.add_argument("--port", type=int, default=0, help="0 takes any that is free")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    _exit_with_parent()
    server = xllamacpp.Server(_parameters(options))
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


def _parameters(options: argparse.Namespace) -> xllamacpp.CommonParams:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.weights
    parameters.model_alias = {options.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    # Waiting threads spin: more than there are cores to spare slow everything down.
    parameters.cpuparams.n_threads = options.threads
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = SLOTS
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.ui = False
    parameters.verbosity = 0
    return parameters


def _exit_with_parent() -> None:
    """Asks Linux for a SIGTERM when the parent is gone, should it be before stdin is read."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
