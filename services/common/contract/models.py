"""Models: `pomogator.models.v1`."""

from __future__ import annotations

from pomogator.models.v1 import model_service_pb2 as pb

from services.common.contract.chat import CREATE_TIME, CREATE_TIME_NAME
from services.common.contract.message_table import MessageTable
from services.domain.model import Model, ModelPricing, PricingTier, TokenRates

_RATES = MessageTable(TokenRates, pb.TokenRates)
_TIER = MessageTable(PricingTier, pb.PricingTier, {"rates": _RATES.translation})
_PRICING = MessageTable(
    ModelPricing, pb.ModelPricing, {"rates": _RATES.translation, "tiers": _TIER.translation}
)
_MODEL = MessageTable(
    Model, pb.Model, {"create_time": CREATE_TIME, "pricing": _PRICING.translation}, CREATE_TIME_NAME
)

read_model = _MODEL.read
to_model_message = _MODEL.to_message
