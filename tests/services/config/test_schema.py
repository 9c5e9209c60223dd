from __future__ import annotations

from typing import get_type_hints

import msgspec
import pytest

from services.config.prices import PriceConfig
from services.config.schema import BillingConfig, ModelConfig


def test_a_model_has_every_key_of_a_price() -> None:
    """With the same type: a row of `[[models]]` holds its price among other keys."""
    price, model = get_type_hints(PriceConfig), get_type_hints(ModelConfig)

    for key in PriceConfig.__struct_fields__:
        assert model[key] == price[key], key


def test_holds_are_kept_for_two_months_at_least() -> None:
    """A shorter retention is refused; 0 means that they stay."""
    for days in (0, 62, 400):
        read = msgspec.convert({"holds_keep_days": days}, BillingConfig)
        assert read.holds_keep_days == days
    for days in (-1, 1, 61):
        with pytest.raises(msgspec.ValidationError, match=r"62|>= 0"):
            msgspec.convert({"holds_keep_days": days}, BillingConfig)
