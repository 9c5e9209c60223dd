from __future__ import annotations

from google.protobuf.descriptor import ServiceDescriptor
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models

from gateway.surfaces.openai_chat.surface import OpenAIChat
from gateway.surfaces.openai_models.models_handler import LIST_PATH, MODEL_PATH
from gateway.transcoding.bindings import bindings


def annotated(service: ServiceDescriptor) -> list[tuple[str, str, str]]:
    """Return method, verb and path of each `google.api.http` annotation."""
    return [
        (binding.method.name, binding.verb, binding.template.source)
        for binding in bindings([service])
    ]


def test_routes_are_the_annotations() -> None:
    """A method without an annotation has no route."""
    service = chat.DESCRIPTOR.services_by_name["ChatCompletionService"]
    (route,) = OpenAIChat.routes
    assert annotated(service) == [("CreateChatCompletion", *route)]
    assert annotated(models.DESCRIPTOR.services_by_name["ModelService"]) == [
        ("ListModels", "GET", LIST_PATH),
        ("GetModel", "GET", MODEL_PATH.replace(":.+", "=**")),
    ]
