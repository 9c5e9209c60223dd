from __future__ import annotations

from google.api import annotations_pb2
from google.protobuf.descriptor import ServiceDescriptor
from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models

from gateway.surfaces.models.models_handler import LIST_PATH, MODEL_PATH
from gateway.surfaces.openai_chat.surface import OpenAIChat


def contract_routes(service: ServiceDescriptor) -> list[tuple[str, str, str]]:
    """Return method, verb and path of each `google.api.http` annotation."""
    rules = [
        (method.name, method.GetOptions().Extensions[annotations_pb2.http])
        for method in service.methods
    ]
    return [
        (name, verb.upper(), getattr(rule, verb))
        for name, rule in rules
        if (verb := rule.WhichOneof("pattern")) is not None
    ]


def test_routes_are_the_annotations() -> None:
    """A method without an annotation has no route."""
    service = chat.DESCRIPTOR.services_by_name["ChatCompletionService"]
    (route,) = OpenAIChat.routes
    assert contract_routes(service) == [("CreateChatCompletion", *route)]
    assert contract_routes(models.DESCRIPTOR.services_by_name["ModelService"]) == [
        ("GetModel", "GET", MODEL_PATH.replace(":.+", "=**")),
        ("ListModels", "GET", LIST_PATH),
    ]


def test_grpc_gateway_reaches_the_list_of_models() -> None:
    """It takes the last template that matches, and `**` matches no segment, too."""
    names = [method.name for method in models.DESCRIPTOR.services_by_name["ModelService"].methods]

    assert names.index("GetModel") < names.index("ListModels")
