from __future__ import annotations

from pomogator.chat.v1 import chat_completion_service_pb2 as chat
from pomogator.models.v1 import model_service_pb2 as models

from gateway.surfaces.contract_routes import contract_routes


def test_routes_are_the_annotations() -> None:
    """A method without an annotation has no route."""
    services = chat.DESCRIPTOR.services_by_name, models.DESCRIPTOR.services_by_name
    assert list(contract_routes(services[0]["ChatCompletionService"])) == [
        ("CreateChatCompletion", "POST", "/v1/chat/completions")
    ]
    assert list(contract_routes(services[1]["ModelService"])) == [
        ("ListModels", "GET", "/v1/models"),
        ("GetModel", "GET", "/v1/models/{model:.+}"),
    ]
