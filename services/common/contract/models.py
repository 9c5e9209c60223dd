"""Models: `pomogator.models.v1`."""

from __future__ import annotations

from pomogator.models.v1 import model_service_pb2 as pb

from services.common.contract.chat import CREATE_TIME, CREATE_TIME_NAME
from services.common.contract.message_table import MessageTable
from services.domain.model import Model, ModelPrices

_PRICES = MessageTable(ModelPrices, pb.ModelPrices)
_MODEL = MessageTable(
    Model,
    pb.Model,
    {"create_time": CREATE_TIME, "prices": _PRICES.translation},
    CREATE_TIME_NAME,
)


def read_model(message: pb.Model) -> Model:
    """Return the model."""
    return _MODEL.read(message)


def to_model_message(model: Model) -> pb.Model:
    """Return the model as a message."""
    message = pb.Model()
    _MODEL.fill(model, message)
    return message
