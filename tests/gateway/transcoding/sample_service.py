"""A service with every kind of binding and field that the edge serves, and an edge for it.

It is compiled at run time. Every method answers with its request, which shows how the edge has read
it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import google.api
import grpc
from aiohttp import web
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

from gateway.config import EdgeConfig
from gateway.http.middleware import add_headers, border
from gateway.http.runner import CONFIG, EdgeRunner
from gateway.telemetry.request_observer import OBSERVER, RequestObserver
from gateway.transcoding import routes

SERVICE = "sample.v1.SampleService"

SOURCE = """
syntax = "proto3";

package sample.v1;

import "google/api/annotations.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

service SampleService {
  rpc GetThing(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/things/{name}"};
  }
  rpc GetSpecial(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/things/special"};
  }
  rpc GetByNumbers(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v2/{inner.name}/{int32_value}/{kind}"};
  }
  rpc GetByTexts(Thing) returns (Thing) {
    option (google.api.http) = {
      get: "/v3/{bool_value}/{bytes_value}/{time}/{int64_wrapper=*}"
    };
  }
  rpc GetShelfThing(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/shelves/{parent}/things/{name}"};
  }
  rpc ListThings(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/shelves/{parent}/things"};
  }
  rpc CreateThing(Thing) returns (Thing) {
    option (google.api.http) = {post: "/v1/shelves/{parent}/things" body: "inner"};
  }
  rpc UpdateThing(Thing) returns (Thing) {
    option (google.api.http) = {patch: "/v1/shelves/{inner.name}" body: "*"};
  }
  rpc UndoThing(Thing) returns (Thing) {
    option (google.api.http) = {post: "/v1/shelves/{name}:undo" body: "*"};
  }
  rpc PutTags(Thing) returns (Thing) {
    option (google.api.http) = {put: "/v1/tags/{name}" body: "tags" response_body: "tags"};
  }
  rpc PutCount(Thing) returns (Thing) {
    option (google.api.http) = {
      put: "/v1/counts/{name}" body: "int32_value" response_body: "int32_value"
    };
  }
  rpc DeleteThing(Thing) returns (Thing) {
    option (google.api.http) = {delete: "/v1/things/{name}" response_body: "inner"};
  }
  rpc GetFile(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/files/{name}"};
  }
  rpc DescribeFile(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/files/{name}:describe"};
  }
  rpc DescribeFiles(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/files:describe"};
  }
  rpc WatchThing(Thing) returns (stream Thing) {
    option (google.api.http) = {get: "/v1/watch/{name}"};
  }
  rpc FailThing(Thing) returns (Thing) {
    option (google.api.http) = {get: "/v1/fail/{name}"};
  }
  rpc PatchThing(Thing) returns (Thing) {
    option (google.api.http) = {patch: "/v1/inners/{inner.name}" body: "inner"};
  }
  rpc PutThing(Thing) returns (Thing) {
    option (google.api.http) = {put: "/v1/inners/{inner.name}" body: "inner"};
  }
  rpc SayText(google.protobuf.StringValue) returns (google.protobuf.StringValue) {
    option (google.api.http) = {post: "/v1/text" body: "*"};
  }
  rpc SayTextField(google.protobuf.StringValue) returns (google.protobuf.StringValue) {
    option (google.api.http) = {put: "/v1/text" body: "value" response_body: "value"};
  }
  rpc GetNumber(google.protobuf.Int64Value) returns (google.protobuf.Int64Value) {
    option (google.api.http) = {get: "/v1/numbers/{value}"};
  }
  rpc SayTime(google.protobuf.Timestamp) returns (google.protobuf.Timestamp) {
    option (google.api.http) = {post: "/v1/time" body: "*"};
  }
  rpc SayObject(google.protobuf.Struct) returns (google.protobuf.Struct) {
    option (google.api.http) = {post: "/v1/object" body: "*"};
  }
  rpc SayList(google.protobuf.ListValue) returns (google.protobuf.ListValue) {
    option (google.api.http) = {post: "/v1/list" body: "*"};
  }
  rpc SayAnything(google.protobuf.Value) returns (google.protobuf.Value) {
    option (google.api.http) = {post: "/v1/anything" body: "*"};
  }
  rpc NotForRest(Thing) returns (Thing);
}

message Thing {
  string name = 1;
  string parent = 2;
  int32 int32_value = 3;
  int64 int64_value = 4;
  uint32 uint32_value = 5;
  uint64 uint64_value = 6;
  float float_value = 7;
  double double_value = 8;
  bool bool_value = 9;
  bytes bytes_value = 10;
  Kind kind = 11;
  repeated string tags = 12;
  repeated int32 numbers = 13;
  repeated Kind kinds = 14;
  Inner inner = 15;
  repeated Inner inners = 16;
  map<string, string> labels = 17;
  google.protobuf.Int64Value int64_wrapper = 18;
  google.protobuf.StringValue string_wrapper = 19;
  google.protobuf.BytesValue bytes_wrapper = 20;
  google.protobuf.BoolValue bool_wrapper = 21;
  google.protobuf.Timestamp time = 22;
  google.protobuf.Duration duration = 23;
  google.protobuf.FieldMask mask = 24;
  optional string nickname = 25;
  oneof choice {
    string left = 26;
    int32 right = 27;
  }
  google.protobuf.FieldMask update_mask = 28;
  map<int64, string> by_number = 29;
  map<bool, string> by_truth = 30;
  repeated google.protobuf.Value values = 31;
}

message Inner {
  string name = 1;
  int32 count = 2;
  repeated string tags = 3;
  Inner inner = 4;
  Kind kind = 5;
  int64 write_1h = 6;
  Kind top_kind = 7;
}

enum Kind {
  KIND_UNSPECIFIED = 0;
  KIND_ROUND = 1;
  KIND_SQUARE = 2;
}
"""


@dataclass(frozen=True)
class CompiledService:
    """The service, compiled in a folder."""

    folder: Path
    """The folder of `sample.proto` and `sample.pb`, the descriptors with all their imports."""

    @classmethod
    def compiled(cls, folder: Path, source: str = SOURCE) -> CompiledService:
        """Compile the source in the folder."""
        (folder / "sample.proto").write_text(source)
        installed = Path(next(iter(google.api.__path__))).parents[1]
        own = Path(protoc.__file__).with_name("_proto")
        failed = protoc.main(
            [
                "protoc",
                f"-I{folder}",
                f"-I{installed}",
                f"-I{own}",
                "--include_imports",
                f"--descriptor_set_out={folder / 'sample.pb'}",
                "sample.proto",
            ]
        )
        assert not failed
        return cls(folder)

    @cached_property
    def service(self) -> ServiceDescriptor:
        """The descriptor that the edge reads."""
        files = descriptor_pb2.FileDescriptorSet.FromString(
            (self.folder / "sample.pb").read_bytes()
        )
        pool = descriptor_pool.DescriptorPool()
        for file in files.file:
            pool.Add(file)
        return pool.FindServiceByName(SERVICE)

    def register(self, server: grpc.aio.Server) -> None:
        """Register a handler for every method."""
        handlers = {method.name: _handler(method) for method in self.service.methods}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        server.add_registered_method_handlers(SERVICE, handlers)


def _handler(method: MethodDescriptor) -> Any:
    make: Any = grpc.unary_unary_rpc_method_handler
    behaviour: Any = _BEHAVIOURS.get(method.name, _echo)
    if method.server_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, _echo_many
    return make(
        behaviour,
        request_deserializer=GetMessageClass(method.input_type).FromString,
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


async def _echo(request: Any, context: Any) -> Any:
    await context.send_initial_metadata((("x-pomogator-cost", "12"), ("x-secret", "s")))
    return request


async def _echo_many(request: Any, context: Any) -> AsyncIterator[Any]:
    """Send `int32_value` responses, then fail with the status in `left`, if any."""
    for number in range(request.int32_value):
        answer = type(request)()
        answer.CopyFrom(request)
        answer.int32_value = number
        yield answer
    if request.left:
        await _fail(request.left, context)


async def _fail_by_name(request: Any, context: Any) -> None:
    await _fail(request.name, context)


async def _fail(name: str, context: Any) -> None:
    code = grpc.StatusCode[name]
    status = status_pb2.Status(code=code.value[0], message="because")
    info = error_details_pb2.ErrorInfo(reason="SAMPLE", domain="pomogator")
    status.details.add().Pack(info)
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, "because", trailer)


_BEHAVIOURS: Mapping[str, Any] = {"FailThing": _fail_by_name}


@asynccontextmanager
async def edge(
    sample: CompiledService,
    channel: grpc.aio.Channel,
    config: EdgeConfig = EdgeConfig(),  # noqa: B008 - frozen
    **options: Any,
) -> AsyncIterator[str]:
    """Run our edge in front of the service; give its URL."""
    app = web.Application(middlewares=[border])
    app[OBSERVER] = RequestObserver()
    app[CONFIG] = config
    app.on_response_prepare.append(add_headers)
    app.add_routes(routes([sample.service], channel, config, **options))
    runner = EdgeRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


def no_metadata(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Return no metadata, and refuse no request."""
    return ()
