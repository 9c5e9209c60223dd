"""Program of a local model's process: `model_server.py WEIGHTS --alias NAME`.

It runs llama.cpp's HTTP server on loopback, which serves `/v1/chat/completions` and
`/v1/messages`, or with `--embeddings` `/v1/embeddings`. Once the model is loaded it writes one line
of JSON to stdout, `{"address": "http://127.0.0.1:PORT"}`, and it exits when its stdin closes. It is
a process of its own because its compute threads would delay the event loop.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import signal
import sys

import xllamacpp

# For all slots together. A conversation that exceeds the share of its slot ends.
CONTEXT_TOKENS = 8192
SLOTS = 4
# The default of 8 GiB is too much beside the gateway.
PROMPT_CACHE_MIB = 256

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve until stdin closes."""
    parser = argparse.ArgumentParser(prog="model_server")
    parser.add_argument("weights", help="GGUF file")
    parser.add_argument("--alias", required=True, help="name of the model")
    parser.add_argument("--port", type=int, default=0, help="port; 0 selects a free one")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings instead")
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
    # Waiting threads spin, so more threads than spare cores slow everything down.
    parameters.cpuparams.n_threads = options.threads
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = SLOTS
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.ui = False
    parameters.verbosity = 0
    if options.embeddings:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # A text that is pooled has to fit into one physical batch.
        parameters.n_batch = parameters.n_ubatch = CONTEXT_TOKENS // SLOTS
    return parameters


def _exit_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent exits, which may happen before stdin is read."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
