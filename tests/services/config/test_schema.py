from __future__ import annotations

from typing import get_type_hints

from services.config.prices import PriceConfig
from services.config.schema import ModelConfig


def test_a_model_has_every_key_of_a_price() -> None:
    """With the same type: a row of `[[models]]` holds its price among other keys."""
    price, model = get_type_hints(PriceConfig), get_type_hints(ModelConfig)

    for key in PriceConfig.__struct_fields__:
        assert model[key] == price[key], key
