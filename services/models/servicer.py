"""ModelService, for callers: the models that their key may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.admission.call_plan import CallPlans
from services.admission.keyring import Caller, Keyring
from services.common.contract.models import to_model_message
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.models.model_facts import ModelFacts
from services.providers.base import ModelRoute
from services.routing.catalog import Catalog
from services.rpc.call_context import Context, metadata_of
from services.rpc.paging import Page


class ModelServicer(pb_grpc.ModelServiceServicer):
    """Lists the models of the catalog that the caller's key may use, and that have a price."""

    def __init__(
        self,
        keyring: Keyring,
        catalog: Callable[[], Catalog],
        plans: Callable[[], CallPlans],
        facts: ModelFacts,
        lists_thinking_names: Callable[[], bool] = lambda: True,
    ) -> None:
        """Create the servicer. `catalog` and `plans` return the current ones."""
        self._lists_thinking_names = lists_thinking_names
        self._keyring = keyring
        self._catalog = catalog
        self._plans = plans
        self._facts = facts

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """Return a page of models by name."""
        caller = await self._caller(context)
        page = Page.of(request.page_size, request.page_token, "ListModels")
        _, last_name = page.after
        found = [
            route
            for route in self._catalog().routes
            if self._is_listed(caller, route) and route.model > last_name
        ]
        if not request.page_size:
            return pb.ListModelsResponse(models=await self._messages(caller, found))
        messages = await self._messages(caller, found[: page.size])
        shown, token = page.cut(found, messages, lambda route: (0, route.model))
        return pb.ListModelsResponse(models=shown, next_page_token=token)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Return a model. Raise Failure NOT_FOUND if the key may not use it."""
        caller = await self._caller(context)
        route = self._catalog().find(request.model)
        if route is None or not self._is_offered(caller, route):
            raise Failure(ErrorReason.NOT_FOUND, "There is no such model.", param="model")
        (message,) = await self._messages(caller, [route])
        return pb.GetModelResponse(model=message)

    def _is_listed(self, caller: Caller, route: ModelRoute) -> bool:
        is_twin = route.model != route.base_model
        if is_twin and (caller.scope.thinking_names_hidden or not self._lists_thinking_names()):
            return False
        return self._is_offered(caller, route)

    def _is_offered(self, caller: Caller, route: ModelRoute) -> bool:
        model = route.base_model
        return caller.may_use(model) and self._plans().sells(caller, model)

    async def _messages(self, caller: Caller, routes: Sequence[ModelRoute]) -> list[pb.Model]:
        prices = self._plans().prices
        models = await self._facts.of(routes, prices, caller.markup_bp)
        return [to_model_message(model) for model in models]

    async def _caller(self, context: Context) -> Caller:
        return await self._keyring.authenticate(metadata_of(context).get("authorization"))
