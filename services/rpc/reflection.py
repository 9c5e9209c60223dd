"""Server reflection, in both versions: `grpc.reflection.v1` and its predecessor `v1alpha`.

The messages of both are the same but for their package. The servicer of `grpcio-reflection` has
only the older one, and does not find methods, which `grpcurl describe` and `ghz --call` ask for.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection_pb2 as pb

from services.rpc.call_context import Context

V1, V1ALPHA = "grpc.reflection.v1", "grpc.reflection.v1alpha"
SERVICE = "ServerReflection"
METHOD = "ServerReflectionInfo"

Request: TypeAlias = pb.ServerReflectionRequest
Response: TypeAlias = pb.ServerReflectionResponse
_Find: TypeAlias = "Callable[[descriptor_pool.DescriptorPool], FileDescriptor]"


def add_reflection(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Serve reflection that lists these services, by their full names, and itself."""
    names = [f"{package}.{SERVICE}" for package in (V1, V1ALPHA)]
    handler: Any = grpc.stream_stream_rpc_method_handler(
        _Reflection([*services, *names]).answer, Request.FromString, Response.SerializeToString
    )
    generic = [grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names]
    server.add_generic_rpc_handlers(tuple(generic))


class _Reflection:
    """Answers requests from the descriptors of this process."""

    def __init__(self, services: Sequence[str]) -> None:
        self._services = sorted(services)
        self._answers: Mapping[str, Callable[[Any], Response]] = {
            "list_services": lambda _: self._list_services(),
            "file_by_filename": lambda name: _files(lambda pool: pool.FindFileByName(name)),
            "file_containing_symbol": lambda name: _files(lambda pool: _find_symbol(pool, name)),
            "file_containing_extension": _extension_file,
            "all_extension_numbers_of_type": _extension_numbers,
        }

    async def answer(
        self, requests: AsyncIterator[Request], _context: Context
    ) -> AsyncGenerator[Response, None]:
        """Answer each request of a dialogue, failures included: the dialogue goes on."""
        async for request in requests:
            kind = request.WhichOneof("message_request")
            try:
                response = self._answers[kind or ""](kind and getattr(request, kind))
            except KeyError:
                known = kind is not None
                code = grpc.StatusCode.NOT_FOUND if known else grpc.StatusCode.INVALID_ARGUMENT
                text = "There is no such symbol or file." if known else "The request is empty."
                response = Response(
                    error_response=pb.ErrorResponse(error_code=code.value[0], error_message=text)
                )
            response.valid_host = request.host
            response.original_request.CopyFrom(request)
            yield response

    def _list_services(self) -> Response:
        listed = [pb.ServiceResponse(name=name) for name in self._services]
        return Response(list_services_response=pb.ListServiceResponse(service=listed))


def _files(find: _Find) -> Response:
    """Return a file with all that it imports. Raises KeyError."""
    try:
        found = find(descriptor_pool.Default())
    except KeyError:
        found = find(_v1_pool())
    files = {file.name: file for file in _with_imports(found)}
    protos = [file.serialized_pb for file in files.values()]
    return Response(
        file_descriptor_response=pb.FileDescriptorResponse(file_descriptor_proto=protos)
    )


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for imported in file.dependencies:
        yield from _with_imports(imported)


def _find_symbol(pool: descriptor_pool.DescriptorPool, name: str) -> FileDescriptor:
    """Return the file of a symbol. protobuf's own search does not know methods."""
    try:
        return pool.FindFileContainingSymbol(name)
    except KeyError:
        return pool.FindMethodByName(name).containing_service.file


def _extension_file(request: pb.ExtensionRequest) -> Response:
    def find(pool: descriptor_pool.DescriptorPool) -> FileDescriptor:
        extended = pool.FindMessageTypeByName(request.containing_type)
        extension = pool.FindExtensionByNumber(extended, request.extension_number)
        return pool.FindFileContainingSymbol(extension.full_name)

    return _files(find)


def _extension_numbers(type_name: str) -> Response:
    pool = descriptor_pool.Default()
    extended = pool.FindMessageTypeByName(type_name)
    numbers = sorted(extension.number for extension in pool.FindAllExtensions(extended))
    return Response(
        all_extension_numbers_response=pb.ExtensionNumberResponse(
            base_type_name=type_name, extension_number=numbers
        )
    )


@cache
def _v1_pool() -> descriptor_pool.DescriptorPool:
    """Return a pool with the file of version 1, made from the other: no installed wheel has it."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name = file.name.replace("v1alpha", "v1")
    file.package = V1
    file.ClearField("options")
    for message in file.message_type:
        for field in message.field:
            if field.type_name:  # Only messages have one here.
                field.type_name = field.type_name.replace(V1ALPHA, V1)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(V1ALPHA, V1)
        method.output_type = method.output_type.replace(V1ALPHA, V1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool
