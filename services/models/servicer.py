"""ModelService, for callers: the models that their key may use."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf import timestamp_pb2
from pomogator.models.v1 import model_service_pb2 as pb
from pomogator.models.v1 import model_service_pb2_grpc as pb_grpc

from services.admission.gate import Gate
from services.admission.keyring import Caller, Keyring
from services.domain.error_reason import ErrorReason
from services.errors import Failure
from services.routing.catalog import Catalog, ModelRoute
from services.rpc.failure_border import Context, metadata_of

PAGE_SIZE_MAX = 1000


class ModelServicer(pb_grpc.ModelServiceServicer):
    """Lists the models of the catalog that the caller's key may use, and that have a price."""

    def __init__(
        self, keyring: Keyring, catalog: Callable[[], Catalog], gate: Callable[[], Gate]
    ) -> None:
        """Create the servicer. `catalog` and `gate` return the current ones."""
        self._keyring = keyring
        self._catalog = catalog
        self._gate = gate

    async def ListModels(
        self,
        request: pb.ListModelsRequest,
        context: Context,
    ) -> pb.ListModelsResponse:
        """Return a page of models by name. The page token is the last name of the previous page."""
        caller = await self._caller(context)
        if not 0 <= request.page_size <= PAGE_SIZE_MAX:
            raise Failure(
                ErrorReason.INVALID_FIELD,
                f"`page_size` must be in [0, {PAGE_SIZE_MAX}].",
                param="page_size",
            )
        catalog = self._catalog()
        routes = [
            route
            for route in catalog.routes
            if self._is_offered(caller, route) and route.model > request.page_token
        ]
        page = routes[: request.page_size or None]
        return pb.ListModelsResponse(
            models=[_model(route, catalog) for route in page],
            next_page_token=page[-1].model if len(page) < len(routes) else "",
        )

    async def GetModel(
        self,
        request: pb.GetModelRequest,
        context: Context,
    ) -> pb.GetModelResponse:
        """Return a model. Raise Failure NOT_FOUND if the key may not use it."""
        caller = await self._caller(context)
        catalog = self._catalog()
        route = catalog.find(request.model)
        if route is None or not self._is_offered(caller, route):
            raise Failure(ErrorReason.NOT_FOUND, "There is no such model.", param="model")
        return pb.GetModelResponse(model=_model(route, catalog))

    def _is_offered(self, caller: Caller, route: ModelRoute) -> bool:
        model = route.base_model
        return caller.may_use(model) and self._gate().sells(caller, model)

    async def _caller(self, context: Context) -> Caller:
        return await self._keyring.authenticate(metadata_of(context).get("authorization"))


def _model(route: ModelRoute, catalog: Catalog) -> pb.Model:
    capabilities = route.capabilities
    return pb.Model(
        name=route.model,
        owner=route.model.partition("/")[0],
        create_time=timestamp_pb2.Timestamp(seconds=catalog.create_time_s),
        max_output_token_count=capabilities.max_output_tokens,
        accepts_images=capabilities.images == "yes",
        reasons=capabilities.named_thinking or route.model != route.base_model,
    )
